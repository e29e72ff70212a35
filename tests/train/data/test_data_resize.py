"""Area averaging: exact sums, the mean is kept, whole factors are block means, other factors match a fine grid."""

from __future__ import annotations

import numpy as np
import pytest

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.prepare.geometry import Geometry
from ambient_train.data.resize import area_resize, area_weights


@pytest.mark.parametrize(("n_in", "n_out"), [(28, 8), (8, 8), (5, 3), (3, 5), (32, 4), (7, 2), (218, 64)])
def test_area_weights_partition_every_pixel_and_every_cell(n_in: int, n_out: int) -> None:
    weights, row_sum = area_weights(n_in, n_out)
    assert (weights.sum(1) == row_sum).all()
    assert (weights.sum(0) * n_in == row_sum * n_out).all()
    assert (weights >= 0).all()


@pytest.mark.parametrize(("n_in", "n_out"), [(28, 8), (5, 3), (6, 4), (7, 2)])
def test_any_ratio_equals_repeating_pixels_then_averaging_whole_blocks(n_in: int, n_out: int) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, n_in, n_in)).astype(np.float32)
    fine = images.astype(np.float64).repeat(n_out, -1).repeat(n_out, -2)
    expected = fine.reshape(2, 3, n_out, n_in, n_out, n_in).mean((3, 5))
    np.testing.assert_allclose(area_resize(images, n_out), expected, atol=1e-6)


def test_uint8_result_is_the_exactly_rounded_rational_mean() -> None:
    images = np.random.default_rng(1).integers(0, 256, (20, 1, 28, 28)).astype(np.uint8)
    weights, row_sum = area_weights(28, 8)
    exact = weights @ images.astype(np.int64) @ weights.T
    got = area_resize(images, 8).astype(np.int64)
    assert (2 * abs(exact - got * row_sum**2) <= row_sum**2).all()


def test_large_images_do_not_lose_exactness() -> None:
    images = np.random.default_rng(2).integers(0, 256, (1, 301, 500)).astype(np.uint8)
    (rows, r), (columns, c) = area_weights(301, 64), area_weights(500, 64)
    exact = rows @ images.astype(np.int64) @ columns.T
    assert (2 * abs(exact - area_resize(images, 64).astype(np.int64) * r * c) <= r * c).all()


def test_constant_images_stay_constant() -> None:
    assert (area_resize(np.full((1, 3, 13, 13), 77, np.uint8), 6) == 77).all()


def test_splitting_a_batch_changes_nothing() -> None:
    images = np.random.default_rng(3).integers(0, 256, (7, 3, 28, 28)).astype(np.uint8)
    one_by_one = np.stack([area_resize(image, 10) for image in images])
    np.testing.assert_array_equal(area_resize(images, 10), one_by_one)


def test_center_crop_takes_the_middle() -> None:
    image = np.zeros((1, 6, 10), np.uint8)
    image[:, :, 2:8] = 200
    assert (Geometry("center-crop", 6).apply(image, "x") == 200).all()
    assert not (Geometry("resize", 6).apply(image, "x") == 200).all()  # control: stretching keeps the borders


def test_center_crop_wide_sets_the_picture_between_black_bars() -> None:
    out = Geometry("center-crop-wide", 16, 8).apply(np.full((3, 40, 40), 9, np.uint8), "x")
    assert out.shape == (3, 16, 16)
    assert (out[:, 4:12] == 9).all()
    assert (out[:, :4] == 0).all()
    assert (out[:, 12:] == 0).all()


@pytest.mark.parametrize(("size", "wide"), [((100, 400), (64, 32)), ((400, 100), (64, 32)), ((5, 5), (64, 48))])
def test_center_crop_wide_fits_any_shape(size: tuple[int, int], wide: tuple[int, int]) -> None:
    assert Geometry("center-crop-wide", *wide).apply(np.ones((1, *size), np.uint8), "x").shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("transform", "resolution"),
    [("none", "8"), (None, "7"), (None, "x"), ("crop", "8"), ("center-crop", None), ("resize", "8x4"), (None, "99999")],
)
def test_geometry_that_makes_no_sense_is_a_usage_error(transform: str | None, resolution: str | None) -> None:
    with pytest.raises(UsageError):
        Geometry.parse(transform, resolution)


def test_averaging_white_noise_divides_its_level_by_the_factor_and_other_factors_are_refused() -> None:
    geometry = Geometry("resize", 8)
    noise = np.random.default_rng(4).standard_normal((400, 1, 32, 32)).astype(np.float32)
    measured = geometry.apply(noise, "x").std()
    predicted = geometry.noise_factor(32, 32, "x")
    assert predicted == 0.25
    assert abs(measured - predicted) < 4 * predicted / np.sqrt(2 * 400 * 64)
    with pytest.raises(DataError, match="whole factors"):
        geometry.noise_factor(28, 28, "x")


def test_lanczos_is_pillows() -> None:
    from PIL import Image

    image = np.random.default_rng(5).integers(0, 256, (3, 40, 40)).astype(np.uint8)
    expected = np.array(Image.fromarray(image.transpose(1, 2, 0)).resize((16, 16), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(
        Geometry("resize", 16, filter="lanczos").apply(image, "x"), expected.transpose(2, 0, 1)
    )
