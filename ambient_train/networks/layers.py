"""Building blocks of the EDM networks: convolutions that resample, group norm, attention, embeddings, the block.

Names and shapes in the state dict are those of the reference (Karras et al. 2022, arXiv 2206.00364), so that its
weights load. A layer computes in the dtype of its input; parameters stay in theirs (float32) and are cast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ambient_theory.shared.errors import UsageError
from ambient_train.networks.dropout import KeyedDropout

# ------------------------------------------------------------------------------------------------- linear, convolution


@dataclass(frozen=True)
class Init:
    """Law of initial parameters: `law` fixes the variance by the fans; weights times `weight`, biases times `bias`."""

    law: str = "kaiming_normal"
    weight: float = 1.0
    bias: float = 0.0

    def draw(self, shape: Sequence[int], fan_in: int, fan_out: int, scale: float) -> Tensor:
        """A tensor of the law times `scale`: variance 1/fan_in (kaiming) or 2/(fan_in + fan_out) (xavier), scale 1.

        On the meta device, where networks are laid out without memory, nothing is drawn: arithmetic there would first
        import a compiler, for five to ten seconds.
        """
        if torch.get_default_device().type == "meta":
            return torch.empty(*shape)
        if self.law == "xavier_uniform":
            return math.sqrt(6 / (fan_in + fan_out)) * (2 * torch.rand(*shape) - 1) * scale
        if self.law == "kaiming_uniform":
            return math.sqrt(3 / fan_in) * (2 * torch.rand(*shape) - 1) * scale
        if self.law == "kaiming_normal":
            return math.sqrt(1 / fan_in) * torch.randn(*shape) * scale
        raise ValueError(f"unknown initialisation {self.law!r}")


class Linear(nn.Module):
    """x [.., in] -> x W^T + b [.., out], computed in the dtype of x."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, init: Init | None = None):
        super().__init__()
        init = init or Init()
        fans = (in_features, out_features)
        self.weight = nn.Parameter(init.draw([out_features, in_features], *fans, init.weight))
        self.bias = nn.Parameter(init.draw([out_features], *fans, init.bias)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


def _like_images(weight: Tensor, x: Tensor) -> Tensor:
    """The weight of a convolution of x in its dtype and memory layout, in one copy; itself where it has both.

    Weights that are split over ranks (FSDP2) or loaded lie contiguously, images go channels-last: a convolution of both
    would bring the weight into the layout of the images after it had been cast.
    """
    if weight.shape[2] > 1 and x.is_contiguous(memory_format=torch.channels_last):
        return weight.to(x.dtype, memory_format=torch.channels_last)
    return weight.to(x.dtype)


class Conv2d(nn.Module):
    """A convolution with optional resampling by two: x [B, in, H, W] -> [B, out, H', W'].

    With r = `resample_filter` and f = outer(r, r)/(sum r)^2: `up` is a depthwise transposed convolution with 4 f,
    stride 2, padding (len r - 1)//2, then the k x k convolution (padding k//2); `down` a depthwise convolution with f,
    stride 2, same padding, then the convolution. kernel 0 is resampling alone. `fused_down` convolves first with
    padding k//2 + (len r - 1)//2, then applies f with stride 2 and no padding.
    For r = [1, 1] these are nearest-neighbour doubling and 2x2 means, evaluated as such; a 1x1 convolution commutes
    with `up` and is applied before it, at a quarter of the cost.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        up: bool = False,
        down: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        fused_down: bool = False,
        init: Init | None = None,
    ):
        super().__init__()
        init = init or Init()
        if up and down:
            raise ValueError("a convolution goes up or down, not both")
        if not kernel and in_channels != out_channels:
            raise ValueError("kernel 0 only resamples: it cannot change the number of channels")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel, self.up, self.down, self.fused_down = kernel, up, down, fused_down
        fans = (in_channels * kernel**2, out_channels * kernel**2)
        shape = [out_channels, in_channels, kernel, kernel]
        self.weight = nn.Parameter(init.draw(shape, *fans, init.weight)) if kernel else None
        self.bias = nn.Parameter(init.draw([out_channels], *fans, init.bias)) if kernel else None
        self.resample_filter: Tensor | None
        self.taps = tuple(float(tap) for tap in resample_filter)
        r = torch.tensor(self.taps, device="cpu")  # a fact of the settings, also where networks have no memory
        self.register_buffer("resample_filter", torch.outer(r, r)[None, None] / r.sum() ** 2 if up or down else None)

    def _upsample(self, x: Tensor) -> Tensor:
        if self.taps == (1.0, 1.0):
            return F.interpolate(x, scale_factor=2, mode="nearest")
        assert self.resample_filter is not None
        f = (4 * self.resample_filter).to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return F.conv_transpose2d(x, f, groups=x.shape[1], stride=2, padding=(len(self.taps) - 1) // 2)

    def _downsample(self, x: Tensor, padding: int) -> Tensor:
        if self.taps == (1.0, 1.0) and padding == 0:
            return F.avg_pool2d(x, 2)
        assert self.resample_filter is not None
        f = self.resample_filter.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, f, groups=x.shape[1], stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        padding = (len(self.taps) - 1) // 2
        if self.weight is None or self.bias is None:
            return self._upsample(x) if self.up else self._downsample(x, padding) if self.down else x
        w, b = _like_images(self.weight, x), self.bias.to(x.dtype)
        if self.up and self.kernel == 1:
            return self._upsample(F.conv2d(x, w)) + b[:, None, None]
        if self.up:
            return F.conv2d(self._upsample(x), w, b, padding=self.kernel // 2)
        if self.down and self.fused_down:
            return self._downsample(F.conv2d(x, w, padding=self.kernel // 2 + padding), 0) + b[:, None, None]
        if self.down:
            x = self._downsample(x, padding)
        return F.conv2d(x, w, b, padding=self.kernel // 2)


# ------------------------------------------------------------------------------------------------------ normalisation


class _ChannelsLastGroupNorm(torch.autograd.Function):
    """Group norm of a channels-last tensor on a CPU, where PyTorch's own backward pass is up to ten times slower.

    With s1 = sum_pixels dy, s2 = sum_pixels dy x per sample and channel, m = elements of a group, r = 1/std:
    dbias = sum_samples s1, dweight = sum_samples r (s2 - mean s1), A = sum_group w s1/m, B = sum_group r w (s2 -
    mean s1)/m, and dx = r w dy - r^2 B (x - mean) - r A: two passes over the pixels.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        batch, channels, height, width = x.shape
        per_group = channels // mean.shape[1]
        pixels = dy.permute(0, 2, 3, 1).reshape(batch, -1, channels)
        values = x.permute(0, 2, 3, 1).reshape(batch, -1, channels)
        s1, s2 = _sum_pixels(pixels, weight.dtype), _sum_pixels(pixels * values, weight.dtype)
        mean, rstd = mean.repeat_interleave(per_group, dim=1), rstd.repeat_interleave(per_group, dim=1)
        s2 = rstd * (s2 - mean * s1)

        def group_mean(v: Tensor) -> Tensor:
            sums = (weight * v).reshape(batch, -1, per_group).sum(2) / (per_group * height * width)
            return sums.repeat_interleave(per_group, dim=1)

        slope = -(rstd**2) * group_mean(s2)
        offset = -slope * mean - rstd * group_mean(s1)
        dx = torch.addcmul(offset.to(x.dtype)[:, None], values, slope.to(x.dtype)[:, None])
        dx.addcmul_(pixels, (rstd * weight).to(x.dtype)[:, None])
        dx = dx.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return dx, s2.sum(0), s1.sum(0), None, None


def _sum_pixels(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, HW, C] -> [B, C] in `dtype`: first over stretches in the dtype of x, which is the fast pass."""
    stretches = math.gcd(x.shape[1], 32)
    return x.reshape(x.shape[0], stretches, -1, x.shape[2]).sum(2).to(dtype).sum(1)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018) with min(32, C/4) groups; statistics in float32 or better."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.groups = max(1, min(32, channels // 4))
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            weight, bias = (p.to(torch.promote_types(x.dtype, torch.float32)) for p in (self.weight, self.bias))
            if torch.is_grad_enabled() and x.is_contiguous(memory_format=torch.channels_last):
                return _ChannelsLastGroupNorm.apply(x, weight, bias, self.groups, self.eps)
            return F.group_norm(x, self.groups, weight, bias, self.eps)
        return F.group_norm(x, self.groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


# ---------------------------------------------------------------------------------------------------------- attention


def attention_qkv(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """1x1 projection of x [B, C, H, W] to queries, keys, values [B, heads, HW, C/heads].

    Rows of `weight` [3C, C] are interleaved, row (h C/heads + c) 3 + j for head h, channel c and j = q, k, v: the
    (small) weight is reordered rather than the activations.
    """
    batch, channels, height, width = x.shape
    w = weight.reshape(heads, channels // heads, 3, channels).permute(2, 0, 1, 3).reshape(3 * channels, channels)
    b = bias.reshape(heads, channels // heads, 3).permute(2, 0, 1).reshape(3 * channels)
    tokens = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    qkv = F.linear(tokens, w, b).reshape(batch, height * width, 3, heads, channels // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


# -------------------------------------------------------------------------------------------------------------- block


class UNetBlock(nn.Module):
    """The residual block of both networks: x [B, in, H, W], emb [B, E] -> [B, out, H', W'].

    `h = conv0(silu(norm0(x)))` (conv0 resamples); plain: `h = silu(norm1(h + p))` with p = affine(emb); adaptive:
    `h = silu(shift + norm1(h) (scale + 1))`; `h = conv1(dropout(h))`; `x = (h + skip(x)) skip_scale`; with attention
    `x = (x + proj(softmax(q^T k/sqrt(C/heads)) v)) skip_scale` of norm2(x).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
        heads: int = 1,
        dropout: float = 0.0,
        skip_scale: float = 1.0,
        eps: float = 1e-5,
        adaptive: bool = True,
        resample_filter: Sequence[float] = (1, 1),
        resample_proj: bool = False,
        init: Init | None = None,
        init_zero: Init | None = None,
        init_attn: Init | None = None,
    ):
        super().__init__()
        init, init_zero = init or Init(), init_zero or Init(weight=0.0)
        self.adaptive, self.skip_scale = adaptive, skip_scale
        self.heads = heads if attention else 0
        resampling = partial(Conv2d, up=up, down=down, resample_filter=resample_filter, init=init)
        self.norm0 = GroupNorm(in_channels, eps)
        self.conv0 = resampling(in_channels, out_channels, 3)
        self.affine = Linear(emb_channels, out_channels * (2 if adaptive else 1), init=init)
        self.norm1 = GroupNorm(out_channels, eps)
        self.dropout = KeyedDropout(dropout)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=init_zero)
        self.skip: Conv2d | None = None
        if in_channels != out_channels or up or down:
            kernel = 1 if resample_proj or in_channels != out_channels else 0
            self.skip = resampling(in_channels, out_channels, kernel)
        if attention:
            self.norm2 = GroupNorm(out_channels, eps)
            self.qkv = Conv2d(out_channels, out_channels * 3, 1, init=init_attn or init)
            self.proj = Conv2d(out_channels, out_channels, 1, init=init_zero)

    def forward(self, x: Tensor, emb: Tensor, dropout_keys: Tensor | None = None) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        p = self.affine(emb)[:, :, None, None].to(h.dtype)
        if self.adaptive:
            scale, shift = p.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + p))
        h = self.conv1(self.dropout(h, dropout_keys))
        x = h + (x if self.skip is None else self.skip(x))
        if self.skip_scale != 1:
            x = x * self.skip_scale
        return self._attend(x) if self.heads else x

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        assert self.qkv.weight is not None
        assert self.qkv.bias is not None
        h = self.norm2(x)
        q, k, v = attention_qkv(h, self.qkv.weight.to(x.dtype), self.qkv.bias.to(x.dtype), self.heads)
        h = F.scaled_dot_product_attention(q, k, v)
        h = h.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        x = x + self.proj(h)
        return x * self.skip_scale if self.skip_scale != 1 else x


# ---------------------------------------------------------------------------------------------------------- embeddings


def at_least_float32(c: Tensor) -> Tensor:
    """float64 stays, anything narrower becomes float32: angles of the embeddings need the precision."""
    return c.to(torch.promote_types(c.dtype, torch.float32))


class PositionalEmbedding(nn.Module):
    """c [B] -> [B, channels]: cosines and sines of c 10000^(-i/(h - endpoint)), i < h = channels/2 (cos first)."""

    def __init__(self, channels: int, endpoint: bool = False):
        super().__init__()
        self.pairs = channels // 2
        self.endpoint = endpoint

    def forward(self, c: Tensor) -> Tensor:
        c = at_least_float32(c)
        i = torch.arange(self.pairs, dtype=c.dtype, device=c.device)
        freqs = (1 / 10000) ** (i / (self.pairs - (1 if self.endpoint else 0)))
        angles = torch.outer(c, freqs)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """c [B] -> [B, channels]: cosines and sines of 2 pi f c for fixed random frequencies f ~ N(0, scale^2)."""

    def __init__(self, channels: int, scale: float = 16.0):
        super().__init__()
        self.freqs: Tensor
        self.register_buffer("freqs", Init("kaiming_normal").draw([channels // 2], 1, 1, scale))

    def forward(self, c: Tensor) -> Tensor:
        c = at_least_float32(c)
        angles = torch.outer(c, 2 * math.pi * self.freqs.to(c.dtype))
        return torch.cat([angles.cos(), angles.sin()], dim=1)


# ------------------------------------------------------------------------------------------------- what networks share


def swap_halves(x: Tensor) -> Tensor:
    """[B, 2h] -> [B, 2h]: (cos, sin) becomes (sin, cos)."""
    first, second = x.chunk(2, dim=1)
    return torch.cat([second, first], dim=1)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a network computes in: autocast's where it is on, else that of its input."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def apply_block(block: nn.Module, x: Tensor, emb: Tensor, keys: Tensor | None, recompute: bool) -> Tensor:
    """One UNetBlock, its activations recomputed in the backward pass if `recompute` (Chen et al. 2016)."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x, emb, keys, use_reentrant=False, preserve_rng_state=False)
    return block(x, emb, keys)


def check_levels(name: str, img_resolution: int, levels: int) -> None:
    """Raise UsageError unless the resolution can be halved levels - 1 times."""
    factor = 2 ** (levels - 1)
    if levels < 1 or img_resolution < 1 or img_resolution % factor:
        raise UsageError(
            f"{name}: {levels} levels halve the image {levels - 1} times, so the resolution must be a multiple of "
            f"{factor}, not {img_resolution}; use fewer entries in channel_mult or resize the images"
        )
