"""Random numbers as pure functions of (seed, purpose, index): no generator state, the same on any worker or rank.

Counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
SC'11), evaluated in 64-bit integer tensors, so that it runs vectorised on the device that needs the numbers. torch is
imported by the functions that need it: `hash_uniform`, which decides the parts of a data set, does without.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85

SPLITMIX_STEP = 0x9E3779B97F4A7C15 - 2**64
"""The odd step between successive states of SplitMix64, 2^64 over the golden ratio, as int64."""

Words = TypeVar("Words", np.ndarray, "Tensor")


def key(seed: int, purpose: str) -> tuple[int, int]:
    """Two 32-bit words that stand for (seed, purpose): different purposes give unrelated streams."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox(k: tuple[int, int], high: Tensor, low: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 of the 128-bit counter (low, high), each int64: four tensors of 32-bit words (as int64).

    `high` and `low` broadcast against each other.
    """
    import torch

    high, low = torch.broadcast_tensors(high, low)
    c0, c1 = low & _MASK, (low >> 32) & _MASK
    c2, c3 = high & _MASK, (high >> 32) & _MASK
    k0, k1 = k
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1  # products modulo 2^64; their bits are those of the unsigned product
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, purpose: str, index: Tensor, count: int = 1) -> Tensor:
    """Uniform numbers in (0, 1), float64 with 53 random bits: [B, count] for int64 `index` [B].

    Row b is a function of (seed, purpose, index[b]) alone.
    """
    return uniform_of(key(seed, purpose), index, count)


def uniform_of(k: tuple[int, int], index: Tensor, count: int = 1) -> Tensor:
    """`uniform` of a key that is at hand: what a compiler can follow."""
    import torch

    block = torch.arange((count + 1) // 2, device=index.device)
    a, b, c, d = philox(k, index[:, None], block)
    pair = torch.stack([_to_unit(a, b), _to_unit(c, d)], dim=-1)
    return pair.flatten(1)[:, :count]


def _to_unit(a: Tensor, b: Tensor) -> Tensor:
    import torch

    return (((a >> 5) * 67108864 + (b >> 6)).to(torch.float64) + 0.5) * 2.0**-53


def normal(seed: int, purpose: str, index: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Standard normal numbers [B, *shape] for int64 `index` [B], by Box and Muller (1958) on 32-bit uniforms.

    Row b is a function of (seed, purpose, index[b]) alone. dtype: float32 unless given.
    """
    return normal_of(key(seed, purpose), index, shape, dtype)


def normal_of(k: tuple[int, int], index: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """`normal` of a key that is at hand: what a compiler can follow."""
    import torch

    count = math.prod(shape)
    block = torch.arange((count + 3) // 4, device=index.device)
    words = philox(k, index[:, None], block)
    u = [(w.to(torch.float64) + 0.5).mul_(2.0**-32).to(torch.float32) for w in words]
    r0, r1 = (-2.0 * u[0].clamp_max(1 - 2**-24).log()).sqrt(), (-2.0 * u[2].clamp_max(1 - 2**-24).log()).sqrt()
    t0, t1 = (2.0 * math.pi) * u[1], (2.0 * math.pi) * u[3]
    z = torch.stack([r0 * t0.cos(), r0 * t0.sin(), r1 * t1.cos(), r1 * t1.sin()], dim=-1)
    return z.flatten(1)[:, :count].reshape(index.shape[0], *shape).to(dtype or torch.float32)


def mix64(x: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014) of int64 words, NumPy's or torch's: a bijection of 64 bits.

    Products wrap; an arithmetic shift with its sign bits masked away is the shift of the unsigned word.
    """
    x = (x ^ ((x >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ ((x >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return x ^ ((x >> 31) & (2**33 - 1))


def upper53(x: Words) -> Words:
    """The upper 53 bits of int64 words, as whole numbers: a float64 holds them exactly."""
    return (x >> 11) & (2**53 - 1)


def hash_uniform(ids: np.ndarray, purpose: int) -> np.ndarray:
    """Numbers in [0, 1) for whole numbers, each a function of (purpose, id) alone; NumPy only.

    `mix64` twice. Which images are held out or left out is decided by these numbers: another generator would be
    another split, and no earlier result could be continued.
    """
    words = np.atleast_1d(np.asarray(ids).astype(np.int64)) * SPLITMIX_STEP + np.int64(purpose)
    return (upper53(mix64(mix64(words))).astype(np.float64) / 2.0**53).reshape(np.shape(ids))


def order(seed: int, purpose: str, index: Tensor) -> Tensor:
    """A permutation of the positions of `index` [N], by the random key of each element (ties by position).

    The first n elements of a longer list's order are nested in its first m > n, and an element's place relative to
    another depends on those two alone.
    """
    import torch

    return torch.sort(uniform(seed, purpose, index)[:, 0], stable=True).indices
