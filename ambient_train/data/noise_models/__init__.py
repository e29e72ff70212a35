"""Kinds of noise that data can carry: what a noisy image is, and how a denoiser learns from one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.data.noise_models._base import NoiseModel

TABLE: Registry[NoiseModel] = Registry("ambient_train.data.noise_models", "noise model")
