"""Muon: steps along the orthogonalised momentum of weight matrices, Adam for everything else.

For a hidden weight W [m, k] (a convolution's kernel as out x everything else) with gradient G,

    M <- mu M + (1 - mu) G,    U = NS5((1 - mu) G + mu M),    W <- (1 - lr wd) W - .2 lr sqrt(max(m, k)) U

where NS5 is five steps of X <- a X + (b X X' + c (X X')^2) X from X = G/||G||_F: it takes all singular values to about
one (Jordan et al. 2024). The factor gives an update the root mean square of Adam's (Liu et al. 2025, arXiv 2502.16982).
torch's own `torch.optim.Muon` takes matrices only and works one by one in bfloat16, which on a processor without it
takes twice the time of the whole training step (measured, small 8x8 network); here kernels are matrices, those of one
shape are done together, and the arithmetic is that of the weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_STEPS, MOMENTUM, RMS = 5, 0.95, 0.2
HIDDEN = 16
"""A weight is a hidden one if it has at least so many outputs and inputs (channels, for a convolution): layers that
touch the pixels, biases and gains are Adam's."""


def is_hidden(p: Tensor) -> bool:
    """Whether a parameter is a weight matrix between hidden layers."""
    return p.ndim >= 2 and p.shape[0] >= HIDDEN and p.shape[1] >= HIDDEN


def orthogonalised(x: Tensor) -> Tensor:
    """U V' of x = U S V' [..., m, k], roughly: singular values come out between about .7 and 1.2.

    Every step multiplies by a polynomial of the small Gram matrix R = X X', so for a flat x (k >= 2 m) the steps are
    taken in m x m: P = a + b R + c R^2, Q <- P Q, R <- P R P, and x is touched once before and once after.
    """
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    if x.shape[-1] >= 2 * x.shape[-2]:
        gram, product = x @ x.mT, None
        one = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
        for _ in range(NS_STEPS):
            factor = a * one + b * gram + c * (gram @ gram)
            product = factor if product is None else factor @ product
            gram = factor @ gram @ factor
        x = x if product is None else product @ x
    else:
        for _ in range(NS_STEPS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


def as_matrix(p: Tensor) -> Tensor:
    """[m, k]: out x everything else, a view where the memory allows it (the order of the columns does not matter)."""
    return p.permute(0, *range(2, p.ndim), 1).reshape(p.shape[0], -1)


def _like(matrix: Tensor, p: Tensor) -> Tensor:
    """Inverse of `as_matrix` for a matrix of p's numbers."""
    shape = (p.shape[0], *p.shape[2:], p.shape[1])
    return matrix.reshape(shape).permute(0, p.ndim - 1, *range(1, p.ndim - 1))


class Muon(torch.optim.Optimizer):
    """Muon for hidden weights with learning rate `lr`, `rest` (Adam) for all other parameters with its own.

    Groups and state are one, so that a schedule and a checkpoint need not know that there are two rules.
    found_inf: as torch's fused optimisers have it: 0-dim on the device, and a step where it is 1 changes nothing.
    """

    found_inf: Tensor | None = None

    def __init__(self, hidden: Sequence[nn.Parameter], rest: torch.optim.Optimizer, lr: float, weight_decay: float):
        super().__init__(list(hidden), {"lr": lr, "weight_decay": weight_decay})
        self.rest = rest
        self.rest.state = self.state
        self.param_groups = [*self.param_groups, *rest.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients; closure is not used."""
        self.rest.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.rest.step()
        good = None if self.found_inf is None else self.found_inf == 0
        group = self.param_groups[0]
        by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                by_shape[p.shape[0], p[0].numel()].append((p, p.grad))
        for shape, members in by_shape.items():
            moved = []
            for p, gradient in members:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = _kept(good, state["momentum"].lerp(gradient, 1 - MOMENTUM), state["momentum"])
                moved.append(as_matrix(gradient.lerp(momentum, MOMENTUM)))
            size = group["lr"] * RMS * math.sqrt(max(shape))
            stacked = torch.stack(moved)
            updates = orthogonalised(stacked if good is None else torch.where(good, stacked, 0.0))  # of 0 it is 0
            for (p, _), update in zip(members, updates, strict=True):
                if group["weight_decay"]:
                    _kept(good, p * (1 - group["lr"] * group["weight_decay"]), p)
                p.sub_(_like(update, p), alpha=size)


def _kept(good: Tensor | None, value: Tensor, into: Tensor) -> Tensor:
    """`into`, which is given `value` where `good`."""
    return into.copy_(value if good is None else torch.where(good, value, into))
