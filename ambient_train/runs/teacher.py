"""The run that a distillation starts from: its averaged network, and what of its settings must agree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import content_hash
from ambient_train.runs.directory import RunDirectory
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.second_stage import OPTIMISATION, inherited
from ambient_train.training import checkpoints


@dataclass(frozen=True, eq=False)
class Teacher:
    """path: of the run. nimg: images after which its weights were taken. weights: of its averaged network. errors: its
    V(sigma)."""

    path: Path
    config: TrainConfig
    nimg: int
    weights: Mapping[str, Tensor]
    errors: Mapping[str, Tensor]

    @property
    def identity(self) -> str:
        """Content of the weights, how they were trained, and for how long: `<16 hex>/<6 hex>/<images>`."""
        return f"{content_of(self.weights)}/{content_hash(self.config.training(), 6)}/{self.nimg}"

    def describe(self) -> dict[str, Any]:
        """For the manifest of the distillation."""
        return {
            "run": self.path.name,
            "path": str(self.path.resolve()),
            "config_hash": self.config.hash,
            "nimg": self.nimg,
            "weights": self.identity.partition("/")[0],
        }

    def check(self, config: TrainConfig) -> None:
        """Raise UsageError where a distillation has other data, or another network or loss, than its teacher."""
        if config.data_hash != self.config.data_hash:
            raise UsageError(
                f"{self.path} was trained on other images (hash {self.config.data_hash}, these have "
                f"{config.data_hash}): a run is distilled with its own data, leave --data out"
            )
        mine, theirs = (inherited(c.identity()) for c in (config, self.config))
        free = {"teacher", *OPTIMISATION}
        if other := sorted(k for k in (set(mine) | set(theirs)) - free if mine.get(k) != theirs.get(k)):
            words = "; ".join(f"{k}: {theirs.get(k)!r} -> {mine.get(k)!r}" for k in other)
            raise UsageError(f"a distillation has the data, network and loss of its run, and these differ ({words})")


def content_of(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of named tensors."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def check_start(weights: Mapping[str, Tensor], network: torch.nn.Module, source: str) -> None:
    """Raise UsageError where weights to begin from are not of this architecture."""
    own = {k: tuple(t.shape) for k, t in network.state_dict().items()}
    theirs = {k: tuple(t.shape) for k, t in weights.items()}
    if other := sorted(k for k in {*own, *theirs} if own.get(k) != theirs.get(k)):
        what = f"{other[0]} is {theirs.get(other[0], 'absent')} there and {own.get(other[0], 'absent')} here"
        raise UsageError(
            f"--init {source}: another architecture, {len(other)} of its tensors differ ({what}): give the "
            "--arch, --width, --channel-mult and --cond that it was trained with, and --augment if it was above 0"
        )


def read_teacher(path: Path, nimg: int | None) -> Teacher:
    """The teacher in a run directory: its newest checkpoint that holds, or the one after `nimg` images.

    Raises DataError where there is none, UsageError for a run that is itself distilled and for another `nimg`.
    """
    directory = RunDirectory(path)
    if not directory.manifest_file.is_file():
        raise DataError(f"{path}: no run of ambient train to distill: give a run directory")
    config = directory.config()
    if config.one_step:
        raise UsageError(f"{path} is itself distilled: give the run that it was distilled from")
    if nimg is None:
        found, complaints = checkpoints.newest_valid(directory.checkpoints)
        if found is None:
            raise DataError(f"{path}: no checkpoint that holds{': ' if complaints else ''}{'; '.join(complaints)}")
    else:
        found = checkpoints.load_at(directory.checkpoints, nimg, config.batch)
    weights = {**found.groups["network"], **found.groups["ema"]}
    return Teacher(path, config, found.nimg, weights, found.groups["errors"])
