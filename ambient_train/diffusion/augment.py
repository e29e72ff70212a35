"""Augmentation that keeps white noise white, with EDM's nine labels.

Maps of a clean image may interpolate: scale 2^(0.2 a), rotation by any angle, anisotropy, shift by fractions of a
pixel (Karras et al. 2022, arXiv 2206.00364, Appendix F.2). On an image that carries noise an interpolating map
correlates the noise of neighbouring pixels, and a denoiser trained on it learns a wrong law; there only maps of the
pixel lattice onto itself are used: flips, quarter turns, circular shifts by whole pixels. They permute pixels, so a
transformed copy carries the transformed noise and is the same observation as the original.

Labels [B, 9], each zero exactly where its map was not applied: x flip, y flip, scale a, rotation (cos r - 1, sin r),
anisotropy (a cos t, a sin t), shift (a_x, a_y) in units of an eighth of the image. Coordinates: x to the right, y
down, the image's centre is the origin. Maps are applied in the order of the labels. Parameters are functions of
(seed, global sample index) alone.

EDM's released networks know the same labels with the y axis upwards, which turns the sign of sin r and of sin t, and
with an anisotropy along the axes (t = 0) for every other image; `edm` draws and labels the maps so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless

LABELS = 9
SCALE_STD = ANISOTROPY_STD = 0.2
"""Standard deviation of log2 of the scale and of the anisotropy."""
SHIFT_STD = 1 / 8
"""Standard deviation of the shift, in units of the image's side."""


@dataclass(frozen=True)
class Maps:
    """One map for each image of a batch, [B] each: flips are bool, the others float64, zero = not applied.

    scale, anisotropy: a, the map stretches by 2^(0.2 a). angle: r in radians. direction: t, of the anisotropy.
    shift: [B, 2] (x, y) in units of an eighth of the image. lattice: bool, the map permutes pixels: scale and
    anisotropy are 0, angle is a multiple of pi/2, shift one of whole pixels and circular.
    """

    flip_x: Tensor
    flip_y: Tensor
    scale: Tensor
    angle: Tensor
    anisotropy: Tensor
    direction: Tensor
    shift: Tensor
    lattice: Tensor

    def labels(self, edm: bool = False) -> Tensor:
        """[B, 9] float32; edm: with the y axis upwards, as EDM's networks know them."""
        up = -1.0 if edm else 1.0
        columns = [
            self.flip_x.to(torch.float64),
            self.flip_y.to(torch.float64),
            self.scale,
            torch.where(self.angle == 0, 0.0, self.angle.cos() - 1),
            torch.where(self.angle == 0, 0.0, up * self.angle.sin()),
            self.anisotropy * self.direction.cos(),
            up * self.anisotropy * self.direction.sin(),
            self.shift[:, 0],
            self.shift[:, 1],
        ]
        return torch.stack(columns, dim=1).to(torch.float32) + 0.0  # no negative zeros

    @property
    def warped(self) -> Tensor:
        """[B] bool: which images need interpolation."""
        moved = (self.scale != 0) | (self.angle != 0) | (self.anisotropy != 0) | (self.shift != 0).any(dim=1)
        return moved & ~self.lattice


def draw_maps(
    seed: int, sample: Tensor, noisy: Tensor, probability: float, side: int, *, always_flip_x: bool = True
) -> Maps:
    """The maps of the global sample indices `sample` [B] int64; noisy: [B] bool; side: of the image, in pixels.

    Each map is drawn with `probability` and else left out. always_flip_x: flip x with probability 1/2 whatever
    `probability` > 0 is, as EDM does; with False the flip is enabled like the others. Raises UsageError for a
    probability outside of [0, 1].
    """
    if not 0 <= probability <= 1:
        raise UsageError(f"augmentation probability {probability} is not in [0, 1]")
    return maps_of(map_keys(seed), sample, noisy, probability, side, always_flip_x=always_flip_x)


Keys = tuple[tuple[int, int], tuple[int, int]]


def map_keys(seed: int) -> Keys:
    """Of the uniform and of the normal numbers that decide the maps."""
    return stateless.key(seed, "augment"), stateless.key(seed, "augment-normal")


def maps_of(
    keys: Keys,
    sample: Tensor,
    noisy: Tensor,
    probability: float,
    side: int,
    *,
    always_flip_x: bool = True,
    edm: bool = False,
) -> Maps:
    """`draw_maps` of keys that are at hand: what a compiler can follow. edm: half of the directions are 0."""
    sample = sample.reshape(-1)
    noisy = noisy.to(sample.device, torch.bool)
    u = stateless.uniform_of(keys[0], sample, 11 if edm else 10)  # the first ten are the same
    direction = (2 * u[:, 9] - 1) * math.pi
    normal = stateless.normal_of(keys[1], sample, (4,), torch.float64)
    enabled = u[:, :6] < probability
    flip_x = enabled[:, 0] | always_flip_x if probability > 0 else enabled[:, 0]
    turns = torch.floor(4 * u[:, 8])
    angle = torch.where(noisy, turns * (math.pi / 2), (2 * u[:, 8] - 1) * math.pi)
    unit = side * SHIFT_STD
    pixels = (normal[:, 2:] * unit).round()
    pixels = pixels - side * (pixels / side).round()  # circular: the representative nearest to 0
    shift = torch.where(noisy[:, None], pixels / unit, normal[:, 2:])
    return Maps(
        flip_x=flip_x & (u[:, 6] < 0.5),
        flip_y=enabled[:, 1] & (u[:, 7] < 0.5),
        scale=torch.where(enabled[:, 2] & ~noisy, normal[:, 0], 0.0),
        angle=torch.where(enabled[:, 3], angle, 0.0),
        anisotropy=torch.where(enabled[:, 4] & ~noisy, normal[:, 1], 0.0),
        direction=torch.where(u[:, 10] < 0.5, direction, 0.0) if edm else direction,
        shift=torch.where(enabled[:, 5:6], shift, 0.0),
        lattice=noisy,
    )


def permute_pixels(images: Tensor, maps: Maps) -> Tensor:
    """Apply the flips of all maps, and turns and circular shifts of the lattice maps: an exact permutation of pixels.

    images: [B, C, S, S].
    """
    batch, channels, side, _ = images.shape
    zero = torch.zeros_like(maps.angle)
    turns = torch.where(maps.lattice, maps.angle / (math.pi / 2), zero).round().to(torch.int64) % 4
    cos = ((turns == 0).to(torch.int64) - (turns == 2).to(torch.int64))[:, None, None]
    sin = ((turns == 1).to(torch.int64) - (turns == 3).to(torch.int64))[:, None, None]
    pixels = torch.where(maps.lattice[:, None], maps.shift * (side * SHIFT_STD), 0.0).round().to(torch.int64)
    index = torch.arange(side, device=images.device)
    # where each output pixel comes from: undo the shift, the turn, the flips; doubled centred coordinates are whole
    x = 2 * ((index[None, :] - pixels[:, :1]) % side)[:, None, :] - (side - 1)
    y = 2 * ((index[None, :] - pixels[:, 1:]) % side)[:, :, None] - (side - 1)
    x, y = cos * x + sin * y, cos * y - sin * x
    x = torch.where(maps.flip_x[:, None, None], -x, x)
    y = torch.where(maps.flip_y[:, None, None], -y, y)
    source = ((y + side - 1) // 2) * side + (x + side - 1) // 2
    flat = source.reshape(batch, 1, side * side).expand(-1, channels, -1)
    return images.reshape(batch, channels, side * side).gather(2, flat).reshape(images.shape)


def inverse_matrices(maps: Maps) -> Tensor:
    """[B, 2, 3] float64: output coordinates (x, y, 1) in [-1, 1]^2 to input coordinates, without the flips.

    The map is shift(anisotropy(rotation(scale(.)))); this is its inverse.
    """

    def rotation(angle: Tensor) -> Tensor:
        c, s = angle.cos(), angle.sin()
        return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)

    stretch = torch.exp2(ANISOTROPY_STD * maps.anisotropy)
    turn = rotation(maps.direction)
    unstretch = turn @ torch.diag_embed(torch.stack([1 / stretch, stretch], -1)) @ turn.mT
    linear = torch.exp2(-SCALE_STD * maps.scale)[:, None, None] * rotation(-maps.angle) @ unstretch
    offset = -linear @ (2 * SHIFT_STD * maps.shift)[:, :, None]
    return torch.cat([linear, offset], dim=2)


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Bicubic resampling of images [B, C, S, S] by inverse maps [B, 2, 3]; beyond the border the image is mirrored."""
    grid = F.affine_grid(inverse.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def apply_maps(images: Tensor, maps: Maps, *, few: bool | None = None) -> Tensor:
    """images [B, C, S, S] -> [B, C, S, S]; an image without a map is returned bit for bit.

    few: interpolate only the images that need it, which asks the device how many they are; by default on a CPU, where
    that costs nothing. Else all are interpolated, and each is taken as it needs it. Raises UsageError if the images
    are not square.
    """
    if images.shape[-1] != images.shape[-2]:
        raise UsageError(f"augmentation turns images, so they must be square, not {tuple(images.shape[-2:])}")
    images = permute_pixels(images, maps)
    if not (images.device.type == "cpu" if few is None else few):
        return torch.where(maps.warped[:, None, None, None], warp(images, inverse_matrices(maps)), images)
    chosen = maps.warped.nonzero()[:, 0]
    if chosen.numel() == 0:
        return images
    moved = warp(images[chosen], inverse_matrices(maps)[chosen])
    return images.index_copy(0, chosen, moved)


def augment(
    images: Tensor,
    noisy: Tensor,
    probability: float,
    *,
    seed: int,
    sample: Tensor,
    always_flip_x: bool = True,
) -> tuple[Tensor, Tensor]:
    """Transform a batch of images, clean ones by any map, noisy ones by lattice maps only; before any diffusion noise.

    images: [B, C, S, S] float. noisy: [B] bool, the image carries noise (sigma_n > 0). probability: of each map.
    seed, sample: [B] int64 global sample indices, which key the draws. Returns the images and labels [B, 9] float32.
    Raises UsageError if the images are not square.
    """
    maps = draw_maps(seed, sample.to(images.device), noisy, probability, images.shape[-1], always_flip_x=always_flip_x)
    return apply_maps(images, maps), maps.labels()


def augment_of(
    keys: Keys,
    images: Tensor,
    noisy: Tensor,
    probability: float,
    sample: Tensor,
    few: bool | None = None,
    edm: bool = False,
) -> tuple[Tensor, Tensor]:
    """`augment` of keys that are at hand: what a compiler can follow, with few=False. edm: see the module."""
    maps = maps_of(keys, sample, noisy, probability, images.shape[-1], edm=edm)
    return apply_maps(images, maps, few=few), maps.labels(edm)


def mirror_at_random(images: Tensor, *, seed: int, sample: Tensor) -> Tensor:
    """Flip each image [B, C, H, W] left to right with probability 1/2, its noise with it; no label says so.

    Keyed like `augment`; the equivalent of a data set that holds every image and its mirror image.
    """
    return mirror_of(stateless.key(seed, "mirror"), images, sample=sample.to(images.device))


def mirror_of(k: tuple[int, int], images: Tensor, *, sample: Tensor) -> Tensor:
    """`mirror_at_random` of a key that is at hand: what a compiler can follow."""
    flip = stateless.uniform_of(k, sample)[:, 0] < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)
