"""Settings of a distillation: those of the run that is distilled, but for how the second stage is optimised.

A manifest is read here, and nothing else of the run: see `runs.teacher` for its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import read_sealed
from ambient_train.diffusion.draws import TABLE as DRAWS
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.edm_presets import EDM_PRESETS
from ambient_train.settings.merging import merged

OPTIMISATION = (
    "optimizer",
    "muon_lr",
    "dropout",
    "batch",
    "lr",
    "lr_ramp_nimg",
    "lr_decay_nimg",
    "weight_decay",
    "grad_clip",
    "ema_halflife_nimg",
    "ema_ramp",
    "precision",
    "loss_scale",
)
"""What the second stage may have otherwise than the first."""

LR, EDM_LR = 3e-4, 1e-5
"""Small networks: a tenth of the rate that was unstable on 8x8 images (one seed, docs/distillation.md)."""
_FOUND = ("data_hash", "n_clean", "n_noisy", "noise_hash", "teacher")
ONLY_DENOISERS = ("sampler", "denoise", "best")
_AMOUNTS = ("keep", "corruption", "n_clean", "n_noisy")


def defaults(preset: str) -> dict[str, Any]:
    """Optimisation of the second stage by preset: Adam without dropout. Zhang et al. 2025 (arXiv 2505.13377): lr 1e-5
    for 55 M parameters, no warm-up, half-life of the averages min(.5 M, 5 %)."""
    lr = EDM_LR if preset in EDM_PRESETS else LR
    plain = {"optimizer": "adam", "dropout": 0.0}
    return {**plain, "lr": lr, "lr_ramp_nimg": 0, "ema_halflife_nimg": 500_000, "ema_ramp": 0.05}


def inherited(first: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings of a training that its distillation shares."""
    own = {"distill", *OPTIMISATION} - {"batch", "precision"}
    kept = {k: v for k, v in first.items() if k not in own and not k.startswith(("consistency", "distill_"))}
    ramps = "compat" not in kept and DRAWS[kept.get("draw", TrainConfig.draw)].ramps
    if ramps:  # the critic learns all that the data are from the start
        kept["draw_epochs"] = 0.0
    if "evaluation" in kept:
        kept["evaluation"] = {k: v for k, v in dict(kept["evaluation"]).items() if k not in ONLY_DENOISERS}
    return kept


def over_teacher(run: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over the settings of the run. Raises UsageError, DataError where there is no such run."""
    if not (run / "manifest.json").is_file():
        raise DataError(f"{run}: no run of ambient train to distill: give a run directory")
    manifest = read_sealed(run / "manifest.json")
    config = manifest.get("config")
    if not isinstance(config, dict):
        raise DataError(f"{run / 'manifest.json'}: not the manifest of a run")
    if config.get("teacher"):
        raise UsageError(f"{run} is itself distilled: give the run that it was distilled from")
    if given.get("dropout"):
        raise UsageError("a distillation has no dropout: it would be part of the generated images; leave it out")
    below = inherited({k: v for k, v in config.items() if k not in _FOUND and v is not None})
    amounts = {k: config[k] for k in ("n_clean", "n_noisy")}
    if not any(k in given for k in _AMOUNTS):
        below |= amounts
    stored = (manifest.get("data") or {}).get("path")
    if stored and not Path(str(config.get("data"))).expanduser().exists():
        below["data"] = stored
    evaluation = inherited({"evaluation": manifest.get("evaluation", {})})["evaluation"]
    return merged({**below, "evaluation": evaluation, "preset": manifest.get("preset", "small")}, given)


def not_for_one_step(evaluation: Any) -> None:
    """Raise UsageError where a table of scores asks a one-step generator for what only a denoiser has."""
    asked = [k for k in ONLY_DENOISERS if evaluation.get(k)] if isinstance(evaluation, Mapping) else []
    if asked:
        raise UsageError(
            f"evaluation.{asked[0]} does not apply to a distilled run, whose network makes an image in one step: "
            "leave it out"
        )
