"""A trained denoiser from a run directory or from an exported or published network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import read_sealed
from ambient_train.interchange.hub import load_network, network_of
from ambient_train.networks.precond import EDMPrecond
from ambient_train.runs.run import RunDirectory
from ambient_train.settings.config import TrainConfig
from ambient_train.training import checkpoints


@dataclass(frozen=True)
class LoadedNetwork:
    """network: with averaged weights, in evaluation mode. precision: to run it in. config, nimg: None, 0 where the
    network does not come from a run directory. name: for messages and records."""

    network: EDMPrecond
    precision: str
    config: TrainConfig | None
    nimg: int
    name: str
    complaints: tuple[str, ...] = ()


def read_run_config(path: Path) -> TrainConfig:
    """The config of a run directory. Raises DataError if it is none."""
    manifest = read_sealed(path / "manifest.json")
    try:
        return TrainConfig.from_dict(manifest["config"])
    except (KeyError, UsageError) as error:
        raise DataError(f"{path / 'manifest.json'}: not the manifest of a run ({error})") from None


def load_denoiser(path: Path, *, device: torch.device | str = "cpu", nimg: int | None = None) -> LoadedNetwork:
    """From a run directory (the newest checkpoint that holds, or the one at `nimg` images), an exported directory
    (`config.json` + `model.safetensors`), an EDM `.pkl` or `hf:ORGANISATION/NAME`. Raises DataError naming what is
    wrong."""
    if not path.exists() and not str(path).startswith("hf:"):
        raise DataError(f"{path}: no such run or network")
    if not (path / "manifest.json").exists():
        network, _ = load_network(str(path))
        return LoadedNetwork(network.to(device).eval(), "fp32", None, 0, path.stem)
    config = read_run_config(path)
    directory = RunDirectory(path)
    complaints: list[str] = []
    if nimg is None:
        checkpoint, complaints = checkpoints.newest_valid(directory.checkpoints)
        if checkpoint is None:
            detail = f" ({'; '.join(complaints)})" if complaints else ""
            raise DataError(f"{path}: no checkpoint to load{detail}: train it first")
    else:
        checkpoint = checkpoints.load(directory.checkpoints / checkpoints.directory_name(nimg))
    network, _ = network_of(checkpoint, path, "ema")
    return LoadedNetwork(
        network.to(device).eval(), config.precision, config, checkpoint.nimg, path.name, tuple(complaints)
    )
