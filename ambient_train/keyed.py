"""Stateless randomness in torch: every draw is a function of (seed, stream, sample id, index) and of nothing else.

A counter-based generator (Salmon et al. 2011) on the SplitMix64 finaliser (Steele, Lea and Flood 2014), evaluated in
wrapping int64 arithmetic: vectorised, the same integers on CPU and GPU, independent of batch composition, ranks and
order. No generator state exists, so none has to be saved for an exact resume.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix64(x: Tensor) -> Tensor:
    """The SplitMix64 finaliser: a bijection of int64 whose output bits each depend on every input bit."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def sample_keys(seed: int, sample_ids: Tensor, stream: int = 0) -> Tensor:
    """One int64 key per sample: a hash of (seed, stream, sample id).

    seed, stream: any integers below 2^64 (stream names the purpose of the draw). sample_ids: integers of any shape,
    the global sample index. Returns int64 of the same shape and device.
    """
    ids = sample_ids.to(torch.int64)
    key = torch.full_like(ids, _signed(seed))
    for word in (torch.full_like(ids, _signed(stream)), ids):
        key = mix64(key + _GOLDEN) ^ word
    return mix64(key + _GOLDEN)


def random_bits(keys: Tensor, n: int) -> Tensor:
    """keys [B] int64 -> [B, n] int64, 64 random bits each, draw i of key k being a hash of (k, i)."""
    counters = torch.arange(1, n + 1, device=keys.device, dtype=torch.int64) * _GOLDEN
    return mix64(mix64(keys[:, None] + counters) + _GOLDEN)


def uniform(keys: Tensor, n: int) -> Tensor:
    """keys [B] int64 -> [B, n] float64, uniform on (0, 1), never 0 or 1: the midpoints of 2^53 cells."""
    return (_shift(random_bits(keys, n), 11).to(torch.float64) + 0.5) * 2.0**-53


def normal(keys: Tensor, n: int) -> Tensor:
    """keys [B] int64 -> [B, n] float64, standard normal by inversion of `uniform`."""
    return torch.special.ndtri(uniform(keys, n))
