"""A second, plain implementation of the EDM networks for tests: dense operations read off the description.

It walks the names of a state dict: no modules, explicit softmax, zero insertion and dense depthwise kernels.
"""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FIXTURES = Path(__file__).parents[1] / "fixtures" / "edm"


def fixture_config(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.config.json").read_text())


def formula_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the fixtures: a formula of name and shape; resampling filters are left out."""
    weights = {}
    for key, tensor in state.items():
        if key.endswith("resample_filter"):
            continue
        shape = tuple(tensor.shape)
        w = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
        if len(shape) >= 2:
            w *= np.float32(0.7 / np.sqrt(np.prod(shape[1:])))
        elif "norm" in key and key.endswith(".weight"):
            w = 1 + np.float32(0.2) * w
        else:
            w = (np.float32(2) if key.endswith("freqs") else np.float32(0.1)) * w
        weights[key] = torch.from_numpy(w)
    return weights


def load_formula_weights(network: torch.nn.Module) -> None:
    missing, unexpected = network.load_state_dict(formula_weights(network.state_dict()), strict=False)
    assert not unexpected
    assert all(name.endswith("resample_filter") for name in missing)


def heun18(denoise, latents: Tensor, labels: Tensor | None) -> Tensor:
    """Deterministic Heun, 18 steps, sigma 80 to .002, rho 7, state in float64 (EDM, Algorithm 1)."""
    steps = np.arange(18) / 17
    t = np.append((80 ** (1 / 7) + steps * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0)
    x = latents.double() * t[0]
    for now, following in itertools.pairwise(t):
        slope = (x - denoise(x, torch.tensor(now), labels).double()) / now
        euler = x + (following - now) * slope
        if following > 0:
            second = (euler - denoise(euler, torch.tensor(following), labels).double()) / following
            euler = x + (following - now) * (slope + second) / 2
        x = euler
    return x


def _filter(taps, dtype) -> Tensor:
    r = torch.tensor(taps, dtype=dtype)
    return torch.outer(r, r) / r.sum() ** 2


def _depthwise(x: Tensor, f: Tensor) -> Tensor:
    """Correlation with f without padding, by explicit sums."""
    k = f.shape[0]
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    return sum(f[i, j] * x[:, :, i : i + height, j : j + width] for i in range(k) for j in range(k))  # type: ignore[return-value]


def up2(x: Tensor, taps) -> Tensor:
    """Zero insertion, then correlation with the flipped 4 f: the transposed convolution by definition."""
    k, pad = len(taps), (len(taps) - 1) // 2
    b, c, h, w = x.shape
    spread = torch.zeros(b, c, 2 * h - 1, 2 * w - 1, dtype=x.dtype)
    spread[:, :, ::2, ::2] = x
    full = _depthwise(F.pad(spread, [k - 1] * 4), 4 * _filter(taps, x.dtype).flip(0, 1))
    return full[:, :, pad : full.shape[2] - pad, pad : full.shape[3] - pad]


def down2(x: Tensor, taps, pad: int) -> Tensor:
    return _depthwise(F.pad(x, [pad] * 4), _filter(taps, x.dtype))[:, :, ::2, ::2]


def group_norm(x: Tensor, w: Tensor, b: Tensor, eps: float) -> Tensor:
    groups = min(32, x.shape[1] // 4)
    g = x.reshape(x.shape[0], groups, -1)
    g = (g - g.mean(2, keepdim=True)) / (g.var(2, keepdim=True, unbiased=False) + eps).sqrt()
    return g.reshape(x.shape) * w[:, None, None] + b[:, None, None]


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


class Formula:
    """F(x, c_noise, class_labels, augment_labels) from a state dict (keys without `model.`) and flat arguments."""

    def __init__(self, state: dict[str, Tensor], config: dict, dtype: torch.dtype = torch.float64):
        self.p = {k: v.to(dtype) for k, v in state.items()}
        self.config = config
        self.song = config["model_type"] == "SongUNet"
        self.taps = config.get("resample_filter", [1, 1])
        self.eps = 1e-6 if self.song else 1e-5

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.p[f"{name}.weight"].T
        return y + self.p[f"{name}.bias"] if f"{name}.bias" in self.p else y

    def conv(self, name: str, x: Tensor, up: bool = False, down: bool = False) -> Tensor:
        pad = (len(self.taps) - 1) // 2
        x = up2(x, self.taps) if up else down2(x, self.taps, pad) if down else x
        if f"{name}.weight" not in self.p:
            return x
        w = self.p[f"{name}.weight"]
        return F.conv2d(x, w, self.p[f"{name}.bias"], padding=w.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return group_norm(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"], self.eps)

    def block(self, name: str, x: Tensor, emb: Tensor) -> Tensor:
        up, down = name.endswith("_up"), name.endswith("_down")
        scale = 0.5**0.5 if self.song else 1.0
        h = self.conv(f"{name}.conv0", silu(self.norm(f"{name}.norm0", x)), up, down)
        p = self.linear(f"{name}.affine", emb)[:, :, None, None]
        if self.song:
            h = silu(self.norm(f"{name}.norm1", h + p))
        else:
            half = p.shape[1] // 2
            h = silu(p[:, half:] + self.norm(f"{name}.norm1", h) * (p[:, :half] + 1))
        h = self.conv(f"{name}.conv1", h)
        skip = self.conv(f"{name}.skip", x, up, down)
        x = (h + skip) * scale
        if f"{name}.qkv.weight" in self.p:
            b, c, height, width = x.shape
            heads = 1 if self.song else c // 64
            qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", x)).reshape(b, heads, c // heads, 3, -1)
            q, k, v = qkv[:, :, :, 0], qkv[:, :, :, 1], qkv[:, :, :, 2]
            w = torch.einsum("nhcq,nhck->nhqk", q, k) / (c // heads) ** 0.5
            w = (w - w.amax(-1, keepdim=True)).exp()
            a = torch.einsum("nhqk,nhck->nhcq", w / w.sum(-1, keepdim=True), v).reshape(b, c, height, width)
            x = (x + self.conv(f"{name}.proj", a)) * scale
        return x

    def embed(self, c: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        width = self.p["map_layer0.weight"].shape[1]
        h = width // 2
        i = torch.arange(h, dtype=c.dtype)
        if "map_noise.freqs" in self.p:
            angles = 2 * torch.pi * c[:, None] * self.p["map_noise.freqs"]
        else:
            angles = c[:, None] * 10000 ** (-i / (h - 1 if self.song else h))
        parts = [angles.sin(), angles.cos()] if self.song else [angles.cos(), angles.sin()]
        emb = torch.cat(parts, 1)
        if augment_labels is not None:
            emb = emb + self.linear("map_augment", augment_labels)
        if self.song:
            if class_labels is not None:
                emb = emb + self.linear("map_label", class_labels * self.config["label_dim"] ** 0.5)
            return silu(self.linear("map_layer1", silu(self.linear("map_layer0", emb))))
        emb = self.linear("map_layer1", silu(self.linear("map_layer0", emb)))
        if class_labels is not None:
            emb = emb + self.linear("map_label", class_labels)
        return silu(emb)

    def __call__(self, x, c, class_labels=None, augment_labels=None) -> Tensor:
        emb = self.embed(c, class_labels, augment_labels)
        names = list(dict.fromkeys(".".join(k.split(".")[:2]) for k in self.p if k.startswith(("enc.", "dec."))))
        skips: list[Tensor] = []
        aux = x
        for name in (n for n in names if n.startswith("enc.")):
            if name.endswith("_conv"):
                x = self.conv(name, x)
                skips.append(x)
            elif name.endswith("_aux_residual"):
                pad = (len(self.taps) - 1) // 2
                w, b = self.p[f"{name}.weight"], self.p[f"{name}.bias"]
                aux = down2(F.conv2d(aux, w, padding=w.shape[-1] // 2 + pad), self.taps, 0) + b[:, None, None]
                x = aux = (x + aux) * 0.5**0.5
                skips[-1] = x
            else:
                x = self.block(name, x, emb)
                skips.append(x)
        for name in (n for n in names if n.startswith("dec.")):
            if name.endswith("_aux_norm"):
                x = silu(self.norm(name, x))
            elif name.endswith("_aux_conv"):
                x = self.conv(name, x)
            else:
                x = self.block(name, torch.cat([x, skips.pop()], 1) if "_block" in name else x, emb)
        return x if self.song else self.conv("out_conv", silu(self.norm("out_norm", x)))
