"""Augmentation: white noise stays white, labels say exactly what was done, draws belong to the sample."""

from __future__ import annotations

import math

import pytest
import torch

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.augment import (
    Maps,
    apply_maps,
    augment,
    draw_maps,
    inverse_matrices,
    map_keys,
    maps_of,
    mirror_at_random,
    permute_pixels,
    warp,
)

torch.set_num_threads(1)


def noise(n: int, side: int = 8, channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def yes(n: int) -> torch.Tensor:
    return torch.ones(n, dtype=torch.bool)


def single(**values: float) -> Maps:
    """A batch of one map."""
    fields = {name: torch.zeros(1, dtype=torch.float64) for name in ("scale", "angle", "anisotropy", "direction")}
    fields |= {name: torch.zeros(1, dtype=torch.bool) for name in ("flip_x", "flip_y", "lattice")}
    fields["shift"] = torch.zeros(1, 2, dtype=torch.float64)
    for name, value in values.items():
        fields[name] = torch.as_tensor(value, dtype=fields[name].dtype).reshape(fields[name].shape)
    return Maps(**fields)


def covariance_excess(images: torch.Tensor) -> float:
    """max |C - I| times sqrt(n): of the order of 1 for white noise."""
    flat = images.flatten(1)
    c = flat.T @ flat / flat.shape[0]
    return float((c - torch.eye(c.shape[0])).abs().max()) * flat.shape[0] ** 0.5


def test_white_noise_stays_white_on_noisy_images_and_not_under_warps() -> None:
    n, side = 20_000, 6
    d = side * side
    white = noise(n, side)
    # entries of C - I have standard error 1/sqrt(n) off and sqrt(2/n) on the diagonal; union bound over d^2 of them
    bound = 2**0.5 * (2 * math.log(2 * d * d / 1e-6)) ** 0.5
    ids = torch.arange(n)
    lattice, labels = augment(white, yes(n), 1.0, seed=1, sample=ids)
    assert (labels != 0).any(1).float().mean() > 0.9
    assert covariance_excess(lattice) < bound
    warped, _ = augment(white, ~yes(n), 1.0, seed=1, sample=ids)
    assert covariance_excess(warped) > 3 * bound  # the control: interpolation correlates neighbours


def test_lattice_maps_only_permute_pixels() -> None:
    images = noise(200, 8, 3)
    out, _ = augment(images, yes(200), 1.0, seed=2, sample=torch.arange(200))
    assert torch.equal(out.flatten(2).sort().values, images.flatten(2).sort().values)
    assert not torch.equal(out, images)


def test_a_transformed_copy_carries_the_transformed_noise() -> None:
    clean, z = noise(100, seed=3), noise(100, seed=4)
    ids = torch.arange(100)
    both, labels = augment(clean + 0.5 * z, yes(100), 1.0, seed=3, sample=ids)
    image, _ = augment(clean, yes(100), 1.0, seed=3, sample=ids)
    grain, _ = augment(z, yes(100), 1.0, seed=3, sample=ids)
    assert torch.equal(both, image + 0.5 * grain)
    mirrored = (labels[:, 0] == 1) & (labels[:, 1:] == 0).all(1)
    out, again = augment(z, yes(100), 1e-9, seed=3, sample=ids)  # x flips alone
    assert torch.equal(out, torch.where(again[:, 0].bool()[:, None, None, None], z.flip(3), z))
    assert torch.equal(again[:, 0], labels[:, 0])
    assert torch.equal(out[mirrored], both.new_empty(0, *z.shape[1:]) if not mirrored.any() else grain[mirrored])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_probability_zero_is_the_identity_bit_for_bit(share: float) -> None:
    images = noise(50)
    noisy = torch.arange(50) < 50 * share
    out, labels = augment(images, noisy, 0.0, seed=1, sample=torch.arange(50))
    assert torch.equal(out, images)
    assert torch.equal(labels, torch.zeros(50, 9))


@pytest.mark.parametrize("noisy", [True, False])
def test_labels_are_zero_exactly_where_nothing_was_done(noisy: bool) -> None:
    images = noise(3000, 8)
    kind = yes(3000) if noisy else ~yes(3000)
    out, labels = augment(images, kind, 0.15, seed=5, sample=torch.arange(3000))
    changed = (out != images).flatten(1).any(1)
    turned = torch.tensor([1.0, 1.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # both flips and a half turn: nothing
    undone = ((labels - turned).abs() < 1e-6).all(1)
    assert torch.equal(changed, (labels != 0).any(1) & ~undone)
    assert undone.sum() < 20
    assert 0.3 < changed.float().mean() < 0.95
    if noisy:
        assert (labels[:, [2, 5, 6]] == 0).all()


def test_each_label_vanishes_alone_with_its_own_map() -> None:
    maps = draw_maps(6, torch.arange(4000), ~yes(4000), 0.5, 8)
    labels = maps.labels()
    for columns, applied in (
        ([0], maps.flip_x),
        ([1], maps.flip_y),
        ([2], maps.scale != 0),
        ([3, 4], maps.angle != 0),
        ([5, 6], maps.anisotropy != 0),
        ([7, 8], (maps.shift != 0).any(1)),
    ):
        assert torch.equal((labels[:, columns] != 0).any(1), applied)
        assert 0 < applied.float().mean() < 1


def test_maps_are_applied_with_their_probabilities_and_laws() -> None:
    n, p = 40_000, 0.12
    maps = draw_maps(7, torch.arange(n), ~yes(n), p, 32)

    def near(share: torch.Tensor, expected: float) -> None:
        assert abs(float(share.float().mean()) - expected) < 5 * (expected * (1 - expected) / n) ** 0.5

    near(maps.flip_x, 0.5)
    near(maps.flip_y, p / 2)
    for applied in (maps.scale != 0, maps.angle != 0, maps.anisotropy != 0, (maps.shift != 0).any(1)):
        near(applied, p)
    both = (maps.scale != 0) & (maps.angle != 0)
    near(both, p * p)
    a = maps.scale[maps.scale != 0]
    assert abs(float(a.mean())) < 5 / len(a) ** 0.5
    assert abs(float(a.var()) - 1) < 5 * (2 / len(a)) ** 0.5
    r = maps.angle[maps.angle != 0]
    assert r.abs().max() <= math.pi
    assert abs(float(r.cos().mean())) < 5 * (0.5 / len(r)) ** 0.5
    near(draw_maps(7, torch.arange(n), ~yes(n), p, 32, always_flip_x=False).flip_x, p / 2)


def test_draws_belong_to_the_sample_not_to_its_batch() -> None:
    images, ids = noise(20), torch.arange(20) + 1000
    kind = ids % 2 == 0
    whole, labels = augment(images, kind, 0.7, seed=8, sample=ids)
    rows = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    part, part_labels = augment(images[rows], kind[rows], 0.7, seed=8, sample=ids[rows])
    torch.testing.assert_close(part, whole[rows], atol=1e-6, rtol=0)
    assert torch.equal(part_labels, labels[rows])
    _, other = augment(images, kind, 0.7, seed=9, sample=ids)
    assert not torch.equal(other, labels)


@pytest.mark.parametrize(
    "values",
    [
        {"flip_x": 1},
        {"flip_y": 1},
        {"angle": math.pi / 2},
        {"angle": math.pi},
        {"angle": 3 * math.pi / 2, "flip_x": 1},
        {"angle": math.pi / 2, "flip_x": 1, "flip_y": 1},
    ],
)
def test_warp_and_permutation_agree_on_turns_and_flips(values: dict) -> None:
    """One orientation for both kinds of image: the interpolating map hits the pixels of the lattice map."""
    image = noise(1, 8, 2)
    by_lattice = apply_maps(image, single(**values, lattice=1))
    by_warp = apply_maps(image, single(**values))
    torch.testing.assert_close(by_warp, by_lattice, atol=1e-4, rtol=0)
    assert not torch.equal(by_lattice, image)


def test_whole_pixel_shifts_agree_away_from_the_border() -> None:
    image = noise(1, 16)
    by_lattice = apply_maps(image, single(shift=[1.0, -0.5], lattice=1))  # 2 pixels right, 1 up
    by_warp = apply_maps(image, single(shift=[1.0, -0.5]))
    assert torch.equal(by_lattice, image.roll((-1, 2), (2, 3)))
    torch.testing.assert_close(by_warp[:, :, :-1, 2:], image[:, :, 1:, :-2], atol=1e-4, rtol=0)


def test_warps_move_a_blob_where_the_formula_says() -> None:
    side = 64
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    start = torch.tensor([0.3, -0.2], dtype=torch.float64)
    blob = torch.exp(-((x - start[0]) ** 2 + (y - start[1]) ** 2) / (2 * 0.05**2))[None, None]
    values = {"scale": 0.7, "angle": 0.4, "anisotropy": -0.9, "direction": 0.6, "shift": [0.8, -0.5]}
    maps = single(**values)
    out = apply_maps(blob, maps)[0, 0]
    centre = torch.stack([(out * x).sum(), (out * y).sum()]) / out.sum()

    def rotate(v: torch.Tensor, angle: float) -> torch.Tensor:
        c, s = math.cos(angle), math.sin(angle)
        return torch.stack([c * v[0] - s * v[1], s * v[0] + c * v[1]])

    v = rotate(2 ** (0.2 * 0.7) * start, 0.4)
    v = rotate(v, -0.6) * torch.tensor([2 ** (-0.2 * 0.9), 2 ** (0.2 * 0.9)])
    expected = rotate(v, 0.6) + torch.tensor([0.8, -0.5]) / 4
    torch.testing.assert_close(centre.double(), expected.double(), atol=2e-3, rtol=0)
    stretched = out.sum() / blob.sum()
    torch.testing.assert_close(float(stretched), 2 ** (2 * 0.2 * 0.7), atol=0.02, rtol=0)
    inverse = inverse_matrices(maps)[0]
    torch.testing.assert_close(inverse @ torch.cat([expected.double(), torch.ones(1)]).double(), start)


def test_shift_labels_of_noisy_images_are_whole_pixels_nearest_to_zero() -> None:
    side = 8
    maps = draw_maps(10, torch.arange(5000), yes(5000), 1.0, side)
    pixels = maps.shift * side / 8
    assert torch.equal(pixels, pixels.round())
    assert pixels.abs().max() <= side / 2
    assert torch.equal(maps.warped, ~yes(5000))


def test_identity_warp_returns_the_image() -> None:
    image = noise(2)
    maps = draw_maps(0, torch.arange(2), yes(2), 0.0, 8)
    torch.testing.assert_close(warp(image, inverse_matrices(maps)), image, atol=1e-5, rtol=0)
    assert torch.equal(permute_pixels(image, maps), image)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match=r"1\.5"):
        augment(noise(2), yes(2), 1.5, seed=0, sample=torch.arange(2))
    with pytest.raises(UsageError, match="square"):
        augment(torch.zeros(2, 1, 8, 6), yes(2), 0.1, seed=0, sample=torch.arange(2))


def test_random_mirror_flips_half_of_the_samples_with_their_noise() -> None:
    z, ids = noise(2000, seed=11), torch.arange(2000)
    out = mirror_at_random(z, seed=1, sample=ids)
    flipped = (out == z.flip(3)).flatten(1).all(1)
    assert torch.equal(out, torch.where(flipped[:, None, None, None], z.flip(3), z))
    assert abs(float(flipped.float().mean()) - 0.5) < 5 * 0.5 / 2000**0.5
    assert torch.equal(mirror_at_random(z[7:9], seed=1, sample=ids[7:9]), out[7:9])


def test_edm_labels_have_the_y_axis_upwards_and_half_of_the_directions_along_the_axes() -> None:
    """The same images where the direction is the same; half of the directions are 0, within 5 standard errors."""
    keys, sample = map_keys(3), torch.arange(4000)
    noisy = torch.zeros(4000, dtype=torch.bool)
    own, edm = (maps_of(keys, sample, noisy, 0.5, 8, edm=e) for e in (False, True))
    along = (edm.direction == 0) & (own.direction != 0)
    assert abs(float(along.double().mean()) - 0.5) < 5 * 0.5 / 4000**0.5
    assert torch.equal(own.direction[~along], edm.direction[~along])
    for name in ("flip_x", "flip_y", "scale", "angle", "anisotropy", "shift"):
        assert torch.equal(getattr(own, name), getattr(edm, name))
    ours, theirs = own.labels(), edm.labels(edm=True)
    assert torch.equal(ours[:, [0, 1, 2, 3, 7, 8]], theirs[:, [0, 1, 2, 3, 7, 8]])
    assert torch.equal(ours[:, 4], -theirs[:, 4])
    assert torch.equal(ours[~along][:, 5:7] * torch.tensor([1.0, -1.0]), theirs[~along][:, 5:7])
    assert not theirs[along][:, 6].any()


def test_a_quarter_turn_to_the_left_is_a_positive_sine_for_edm() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 3] = 1  # upper right
    zero, no = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.bool)
    quarter = Maps(no, no, zero, zero - math.pi / 2, zero, zero, torch.zeros(1, 2, dtype=torch.float64), ~no)
    turned = permute_pixels(image, quarter)
    assert turned[0, 0, 0, 0] == 1  # upper left: counter-clockwise as it is seen
    assert quarter.labels(edm=True)[0, 4] == 1
    assert quarter.labels()[0, 4] == -1
