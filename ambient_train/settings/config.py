"""The frozen configuration of a training: what changes the result, hashed, and how it is resolved.

Precedence: defaults < preset < config file < flags. Only what changes the result is in `TrainConfig`; devices,
processes, workers, logging and the duration are not, so that a run can move, and grow.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import content_hash
from ambient_train.diffusion.draws import TABLE as DRAWS
from ambient_train.diffusion.losses import TABLE as WEIGHTS
from ambient_train.networks.edm_presets import EDM_PRESETS

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines the weights after a given number of images.

    data, resolution, holdout, max_images: see `load_images`. data_hash: content of the training images. n_clean,
    n_noisy: images of each kind. sigma: noise added to the noisy ones, in units of [-1, 1]. arch, network: name in
    `ARCHITECTURES` and its keywords. cond: train with class labels. batch: images a step. lr: peak learning rate of
    Adam. lr_ramp_nimg: images of linear warm-up. lr_decay_nimg: from there lr falls like 1/sqrt(images), 0 = never
    (Karras et al. 2024, arXiv 2312.02696). weight_decay: of AdamW. ema_halflife_nimg, ema_ramp: see `EMA`.
    weight, draw, buffer, weight_cap: see `losses` and `noise_levels`. grad_clip: largest gradient norm, 0 = none.
    precision: fp32, bf16 or fp16 autocast. loss_scale: factor on the loss in fp16. dropout: probability. augment:
    probability of each augmentation. xflip: mirror at random. seed: keys every draw.
    """

    data: str = "digits"
    resolution: int | None = None
    holdout: float | None = None
    max_images: int | None = None
    data_hash: str = ""
    n_clean: int = 0
    n_noisy: int = 0
    sigma: float = 0.0
    arch: str = "SmallUNet"
    network: Mapping[str, Any] = field(default_factory=dict)
    cond: bool = False
    batch: int = 128
    lr: float = 2e-3
    lr_ramp_nimg: int = 10_000
    lr_decay_nimg: int = 0
    weight_decay: float = 0.0
    grad_clip: float = 0.0
    ema_halflife_nimg: int = 20_000
    ema_ramp: float = 0.05
    weight: str = "x0"
    draw: str = "sigma-first"
    buffer: float = 1.05
    weight_cap: float = 10.0
    precision: str = "fp32"
    loss_scale: float = 1.0
    dropout: float = 0.0
    augment: float = 0.0
    xflip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.batch >= 1, f"batch {self.batch} must be >= 1")
        _require(_finite(self.lr) and self.lr > 0, f"lr {self.lr} must be a finite number > 0")
        _require(_finite(self.sigma) and self.sigma >= 0, f"sigma {self.sigma} must be a finite number >= 0")
        _require(self.lr_decay_nimg >= 0, f"lr_decay_nimg {self.lr_decay_nimg} must be >= 0")
        _require(self.lr_ramp_nimg >= 0, f"lr_ramp_nimg {self.lr_ramp_nimg} must be >= 0")
        _require(
            _finite(self.weight_decay) and self.weight_decay >= 0, f"weight_decay {self.weight_decay} must be >= 0"
        )
        _require(_finite(self.grad_clip) and self.grad_clip >= 0, f"grad_clip {self.grad_clip} must be >= 0")
        _require(self.ema_halflife_nimg >= 0, f"ema {self.ema_halflife_nimg} must be >= 0 images")
        _require(0 <= self.ema_ramp < math.inf, f"ema_ramp {self.ema_ramp} must be >= 0")
        _require(self.weight in WEIGHTS, f"weight {self.weight!r} is not one of {', '.join(WEIGHTS)}")
        _require(self.draw in DRAWS, f"draw {self.draw!r} is not one of {', '.join(DRAWS)}")
        _require(self.precision in PRECISIONS, f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        _require(_finite(self.buffer) and self.buffer >= 1, f"buffer {self.buffer} must be a finite number >= 1")
        _require(
            self.weight == "y" or self.draw != "paper",
            f"draw 'paper' has draws at sigma = sigma_n, where weight {self.weight!r} is infinite: use weight 'y'",
        )
        _require(
            self.weight == "y" or self.buffer > 1,
            f"weight {self.weight!r} grows without bound as sigma approaches sigma_n: use a buffer > 1",
        )
        _require(self.weight_cap > 0, f"weight_cap {self.weight_cap} must be > 0")
        _require(0 <= self.dropout < 1, f"dropout {self.dropout} is not in [0, 1)")
        _require(0 <= self.augment <= 1, f"augment {self.augment} is not in [0, 1]")
        _require(_finite(self.loss_scale) and self.loss_scale > 0, f"loss_scale {self.loss_scale} must be > 0")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "network": dict(self.network)}

    @property
    def hash(self) -> str:
        """8 hex digits that name this training."""
        return content_hash(self.to_dict())

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> TrainConfig:
        """Inverse of `to_dict`. Raises UsageError for an unknown key or a value of the wrong type."""
        known = {f.name: f.type for f in fields(cls)}
        if unknown := sorted(set(d) - set(known)):
            raise UsageError(f"unknown config key(s) {', '.join(unknown)}: known are {', '.join(sorted(known))}")
        return cls(**{name: _typed(name, str(known[name]), value) for name, value in d.items()})

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """`key: theirs -> ours` for each key in which a stored config differs."""
        mine = self.to_dict()
        keys = sorted(set(mine) | set(other))
        return [f"{k}: {other.get(k)!r} -> {mine.get(k)!r}" for k in keys if mine.get(k) != other.get(k)]


def _typed(name: str, kind: str, value: Any) -> Any:
    allowed: tuple[type, ...]
    if value is None:
        if "None" in kind:
            return value
        raise UsageError(f"config key {name} must not be null")
    base = kind.split(" | ")[0]
    if base == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    allowed = {"int": (int,), "float": (float,), "str": (str,), "bool": (bool,)}.get(base, (Mapping,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and base != "bool"):
        raise UsageError(f"config key {name} must be of type {base}, not {value!r}")
    return value


def _finite(x: float) -> bool:
    return math.isfinite(x)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary. Raises DataError (exit code 3) naming the file and line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not a readable TOML file ({error})") from None


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named starting point: training settings, sampler settings, duration in images, sizes of an evaluation."""

    train: Mapping[str, Any]
    sampler: Mapping[str, Any] = field(default_factory=dict)
    duration_nimg: int = 200_000
    n_eval: int = 2_000


_TRAIN_8X8: dict[str, Any] = {
    "arch": "SmallUNet",
    "network": {"model_channels": 32, "channel_mult": [1, 2]},
    "precision": "bf16",
    "ema_ramp": 0.15,
    "ema_halflife_nimg": 100_000,
}
_SAMPLER_8X8 = {"steps": 12, "sigma_min": 0.01, "sigma_max": 20.0}

PRESETS: dict[str, Preset] = {
    "digits": Preset(
        train=_TRAIN_8X8,
        sampler=_SAMPLER_8X8,
        duration_nimg=160_000,
        n_eval=2_000,
    ),
    "fashion": Preset(
        train=_TRAIN_8X8,
        sampler=_SAMPLER_8X8,
        duration_nimg=400_000,
        n_eval=5_000,
    ),
    "small": Preset(
        train={
            "arch": "SmallUNet",
            "network": {"model_channels": 32, "channel_mult": [1, 2, 2], "num_blocks": 2},
            "precision": "bf16",
        },
        sampler={"steps": 18},
        duration_nimg=1_000_000,
        n_eval=2_000,
    ),
    **{name: Preset(**settings) for name, settings in EDM_PRESETS.items()},
}


def default_preset(data: str) -> str:
    """The preset used when none is named: that of a built-in data set, else `small`."""
    return data if data in PRESETS else "small"


def get_preset(name: str) -> Preset:
    """Raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise UsageError(f"preset {name!r} is unknown: choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
