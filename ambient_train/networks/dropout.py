"""Dropout whose masks are a function of (seed, purpose, global sample index, layer), whatever the batch or the rank.

Three steps, each as cheap as its number of values asks: Philox (`stateless`) makes one key of each sample, the
SplitMix64 finaliser one of each of its layers, and a two-round multiply-xorshift hash the bits of each element. The
last is no generator of `stateless` because it runs for every activation of every step: Philox takes ten rounds of
64-bit products for four words, this hash two rounds of 32-bit ones for two elements. Its bits decide masks and nothing
else, and they are pinned: a run in progress resumes exactly.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ambient_theory.shared.errors import UsageError
from ambient_train.stateless import SPLITMIX_STEP, mix64, philox, upper53
from ambient_train.stateless import key as stateless_key

MAX_LAYERS = 255
"""Dropout layers that a network can have; one more key of each sample is for its label dropout."""


class _ActiveKeys:
    """What `dropout_context` sets and a network in training mode reads."""

    keys: Tensor | None = None


_active = _ActiveKeys()


@contextlib.contextmanager
def dropout_context(seed: int, sample_ids: Tensor, purpose: str = "dropout") -> Iterator[Tensor]:
    """Give the forward passes inside the keys of their dropout masks.

    sample_ids: [B] integers, the global sample index of each image of the batch, on the network's device. purpose:
    tells several passes over the same samples apart. Yields the keys [B, MAX_LAYERS + 1] int64 of the layers. Masks
    are a function of (seed, purpose, sample index, layer index), whatever the batch, the rank or the device: Philox
    makes a key of each sample, SplitMix64 one of each of its layers.
    """
    with dropout_keys(keys_of(stateless_key(seed, purpose), sample_ids)) as keys:
        yield keys


def keys_of(k: tuple[int, int], sample_ids: Tensor) -> Tensor:
    """The keys [B, MAX_LAYERS + 1] of `dropout_context`, k being the one of its seed and purpose."""
    ids = sample_ids.reshape(-1).to(torch.int64)
    low, high, _, _ = philox(k, ids, torch.zeros_like(ids))
    layers = torch.arange(1, MAX_LAYERS + 2, device=ids.device)
    return mix64((low | (high << 32))[:, None] + layers * SPLITMIX_STEP)


@contextlib.contextmanager
def dropout_keys(keys: Tensor) -> Iterator[Tensor]:
    """As `dropout_context`, with keys that are at hand."""
    before = _active.keys
    _active.keys = keys
    try:
        yield keys
    finally:
        _active.keys = before


def drops(network: nn.Module) -> bool:
    """Whether a network in training mode asks for keys: it drops values or labels with a probability above 0."""
    return any(
        (isinstance(m, KeyedDropout) and m.drops) or getattr(m, "label_dropout", 0) > 0 for m in network.modules()
    )


def active_dropout_keys() -> Tensor | None:
    """The keys [B, MAX_LAYERS + 1] of the enclosing `dropout_context`, or None outside of one."""
    return _active.keys


def require_keys(keys: Tensor | None, batch: int) -> Tensor:
    """Raise RuntimeError without keys and ValueError for keys of another batch size: errors of the caller's code."""
    if keys is None:
        raise RuntimeError("dropout in training mode needs keys: call inside dropout_context(seed, sample_ids)")
    if keys.shape[0] != batch:
        raise ValueError(f"dropout keys for {keys.shape[0]} samples, batch of {batch}")
    return keys


def keyed_bits(key: Tensor, n: int) -> Tensor:
    """key [B] int64 -> [B, n] int16, uniform bits: a keyed hash of the element's index, two elements a 32-bit hash.

    Two multiply-xorshift rounds in wrapping int32 arithmetic with one half of the key before each; passes are in
    place where they can be, because on a CPU the cost is memory traffic.
    """
    low, high = key.to(torch.int32)[:, None], (key >> 32).to(torch.int32)[:, None]
    x = torch.arange((n + 1) // 2, device=key.device, dtype=torch.int32)[None] ^ low
    x = x * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)).add_(high).mul_(-0x7B935975)  # 0x846ca68b as int32
    x = x ^ ((x >> 16) & 0xFFFF)
    return x.view(torch.int16)[:, :n]


def kept_labels(labels: Tensor, p: float, keys: Tensor | None) -> Tensor:
    """labels [B, L] with the rows of a share p of the samples zeroed (Ho and Salimans 2022), by the samples' keys."""
    key = require_keys(keys, labels.shape[0])[:, MAX_LAYERS]
    u = upper53(key).to(torch.float64) * 2.0**-53
    return labels * (u >= p)[:, None].to(labels.dtype)


class KeyedDropout(nn.Module):
    """Dropout whose mask is a function of (seed, global sample index, layer index), never of a global generator.

    p: probability that an element is zeroed, held to multiples of 2^-16; kept elements are divided by 1 - p, so that
    the mean is exact for the p held. layer_index: given by the network that owns the layer. The identity in
    evaluation mode. In training mode raises RuntimeError outside of a `dropout_context` and ValueError if that has
    another batch size.
    """

    def __init__(self, p: float, layer_index: int = 0):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability must be in [0, 1), not {p}")
        self.p = p
        self.layer_index = layer_index
        self._threshold = round(p * 65536)

    @property
    def drops(self) -> bool:
        """Whether the probability, as it is held, is above 0."""
        return self._threshold > 0

    def extra_repr(self) -> str:
        return f"p={self.p}, layer_index={self.layer_index}"

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """x: [B, C, ...]; keys: those of `dropout_context`, by default the enclosing one's. Order: pixels, channels."""
        if not self.training or self._threshold == 0:
            return x
        keys = active_dropout_keys() if keys is None else keys
        key = require_keys(keys, x.shape[0])[:, self.layer_index]
        bits = keyed_bits(key, math.prod(x.shape[1:]))
        kept = (bits >= self._threshold - 32768).to(x.dtype).mul_(1 / (1 - self._threshold / 65536))
        return x * kept.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


def number_dropout_layers(network: nn.Module) -> None:
    """Give every KeyedDropout of a network its index in the order of definition."""
    layers = [m for m in network.modules() if isinstance(m, KeyedDropout)]
    if len(layers) > MAX_LAYERS:
        raise UsageError(f"the network has {len(layers)} blocks with dropout, more than {MAX_LAYERS}: use fewer blocks")
    for index, layer in enumerate(layers):
        layer.layer_index = index
