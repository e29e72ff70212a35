"""The one loader of trained networks: a run directory, a checkpoint, a hub directory, an EDM snapshot, a hub name.

A run brings what it remembers: its config, how it is scored and sampled, and what its data are. An export of a run
brings the same in `ambient.json`. Nothing that is read is executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import read_sealed
from ambient_theory.shared.kinds import COUNT, check_kind
from ambient_train.interchange import hub
from ambient_train.interchange.edm_snapshot import read_edm_snapshot
from ambient_train.networks.precond import EDMPrecond
from ambient_train.runs.directory import RunDirectory, check_data
from ambient_train.runs.state import stored_evaluation
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.files import WEIGHT_SETS
from ambient_train.training import checkpoints

_ON_CARD = ("name", "levels", "n_clean", "n_noisy", "resolution", "channels")


@dataclass(frozen=True, repr=False)
class Trained:
    """A denoiser that can be used, and what is remembered of it.

    network: in evaluation mode. precision: to run it in. name: for messages and records. nimg: images it was trained
    on, 0 where unknown. config, evaluation, data: of the run it comes from, None where it comes from no run; data is
    what `Job.describe_data` says. directory: of the run. complaints: checkpoints that were passed over.
    """

    network: EDMPrecond
    name: str
    precision: str = "fp32"
    nimg: int = 0
    config: TrainConfig | None = None
    evaluation: EvalConfig | None = None
    data: Mapping[str, Any] | None = None
    directory: Path | None = None
    complaints: tuple[str, ...] = ()

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.network.parameters())
        return f"Trained({self.name!r}, {size:,} parameters, {self.nimg:,} images)"

    @property
    def arch(self) -> str:
        """Name of the architecture."""
        return str(self.network.config["model_type"])

    @property
    def one_step(self) -> bool:
        """Whether the network is a distilled generator, which makes an image in one step and denoises nothing."""
        return self.config is not None and self.config.one_step

    def memory(self) -> dict[str, Any] | None:
        """What an export keeps beside the weights; None for a network that comes from no run."""
        if self.config is None:
            return None
        return {
            "schema": hub.MEMORY_SCHEMA,
            "nimg": self.nimg,
            "config": self.config.to_dict(),
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "data": None if self.data is None else {k: v for k, v in self.data.items() if k != "path"},
        }


def load_trained(
    source: str | os.PathLike[str],
    *,
    weights: str = "ema",
    nimg: int | None = None,
    device: torch.device | str = "cpu",
) -> Trained:
    """A trained network from any place it can be in.

    source: a run directory of `ambient train` (its newest checkpoint that holds, or the one at `nimg` images, rounded
    up to whole steps), one of its checkpoints, a hub directory or its `model.safetensors`, an EDM
    `network-snapshot-*.pkl`, or `hf:ORGANISATION/NAME` (extra `hub`; `hf:NAME@REVISION` for a revision). weights: `ema`
    (averaged) or `network`, for runs and their checkpoints. Raises UsageError for a source that is none of these, and
    for `nimg` or `weights` where there is no choice; DataError for one that is damaged.
    """
    if weights not in WEIGHT_SETS:
        raise UsageError(f"weights {weights!r}: choose one of {', '.join(WEIGHT_SETS)}")
    text = os.fspath(source)
    path = hub.download(text.removeprefix("hf:")) if text.startswith("hf:") else Path(text)
    found = _load(path, weights, nimg)
    found.network.to(device).eval()
    return found


def starting_weights(source: str) -> dict[str, torch.Tensor]:
    """The averaged weights of any trained network, to begin a training from; raises as `load_trained` does, and
    UsageError for a distilled generator, which denoises nothing."""
    found = load_trained(source)
    if found.one_step:
        raise UsageError(f"{source} makes an image in one step and denoises nothing: give the run that was distilled")
    return {name: t.detach().to(torch.float32) for name, t in found.network.state_dict().items()}


def is_trained(source: str | os.PathLike[str]) -> bool:
    """Whether a place looks like a network rather than like images; nothing is loaded."""
    text = os.fspath(source)
    path = Path(text)
    inside = (RunDirectory(path).manifest_file, path / hub.CONFIG, path / checkpoints.MANIFEST)
    named = path.suffix == ".pkl" or path.name in (hub.WEIGHTS, hub.OLD_WEIGHTS)
    return text.startswith("hf:") or named or any(p.is_file() for p in inside)


def _load(path: Path, weights: str, nimg: int | None) -> Trained:
    if (path / hub.CONFIG).is_file() or path.name in (hub.WEIGHTS, hub.OLD_WEIGHTS):
        _check_no_choice(path, nimg, weights)
        folder = path if path.is_dir() else path.parent
        network, _ = hub.read_hub(folder)
        return _remembered(network, folder)
    if (path / "checkpoints").is_dir() or ((path / "manifest.json").is_file() and not _is_checkpoint(path)):
        return _load_run(path, weights, nimg)
    if path.is_dir() and _is_checkpoint(path):
        _check_no_choice(path, nimg)
        checkpoint = checkpoints.load(path)
        network, _ = network_of(checkpoint, path, weights)
        return Trained(network, path.name, nimg=checkpoint.nimg)
    if path.is_dir():
        raise UsageError(f"{path}: neither a hub directory ({hub.CONFIG} and {hub.WEIGHTS}) nor a run of ambient train")
    if not path.is_file():
        raise DataError(f"{path}: no such file or directory (for Hugging Face write hf:ORGANISATION/NAME)")
    if path.suffix == ".pkl":
        _check_no_choice(path, nimg, weights)
        snapshot = read_edm_snapshot(path)
        return Trained(hub.build(snapshot.config, snapshot.state_dict, str(path)), path.stem)
    raise UsageError(f"{path}: give an EDM .pkl snapshot, a hub directory, a run directory or hf:ORGANISATION/NAME")


def _check_no_choice(path: Path, nimg: int | None, weights: str = "ema") -> None:
    """Raise UsageError where a moment, or a set of weights, is asked of what holds one."""
    if nimg is not None:
        raise UsageError(f"{path} is no run directory and holds the weights of one moment: leave --at out")
    if weights != "ema":
        raise UsageError(f"{path} is no run directory and holds one set of weights: leave weights {weights!r} out")


def _is_checkpoint(path: Path) -> bool:
    return (path / checkpoints.MANIFEST).is_file() and (path / "meta.json").is_file()


def _load_run(path: Path, weights: str, nimg: int | None) -> Trained:
    directory = RunDirectory(path)
    complaints: list[str] = []
    if nimg is None:
        checkpoint, complaints = checkpoints.newest_valid(directory.checkpoints)
        if checkpoint is None:
            detail = f" ({'; '.join(complaints)})" if complaints else ""
            raise DataError(f"{path}: no checkpoint that holds{detail}: train it first")
    else:
        batch = directory.config().batch if directory.manifest_file.exists() else 1
        checkpoint = checkpoints.load_at(directory.checkpoints, nimg, batch)
    network, _ = network_of(checkpoint, path, weights)
    if not directory.manifest_file.exists():
        return Trained(network, path.name, nimg=checkpoint.nimg, complaints=tuple(complaints))
    manifest = directory.manifest()
    config, evaluation = directory.config(), stored_evaluation(directory, manifest)
    return Trained(
        network,
        path.name,
        precision=config.precision,
        nimg=checkpoint.nimg,
        config=config,
        evaluation=evaluation,
        data=manifest.get("data"),
        directory=path,
        complaints=tuple(complaints),
    )


def network_of(checkpoint: checkpoints.Checkpoint, origin: Path, weights: str) -> tuple[EDMPrecond, dict[str, Any]]:
    """The network a training checkpoint describes, and its config. weights: `ema` (averaged) or `network`."""
    config = checkpoint.meta.get("architecture")
    if not isinstance(config, dict) or "network" not in checkpoint.groups:
        raise DataError(f"{origin}: the checkpoint does not describe its network: train it further, or anew")
    state = dict(checkpoint.groups["network"])
    if weights == "ema":
        state.update(checkpoint.groups.get("ema", {}))
    return hub.build(config, state, str(origin)), config


def _remembered(network: EDMPrecond, folder: Path) -> Trained:
    """A network in hub form, with what its `ambient.json` says of the run it comes from."""
    if not (folder / hub.MEMORY).is_file():
        return Trained(network, folder.name)
    stored = read_sealed(folder / hub.MEMORY)
    try:
        config = TrainConfig.from_dict(stored["config"])
        evaluation = None if stored.get("evaluation") is None else EvalConfig.from_dict(stored["evaluation"])
        check_kind("nimg", stored["nimg"], COUNT)
        nimg = int(stored["nimg"])
        check_data(stored.get("data"))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / hub.MEMORY}: does not describe a run ({error})") from None
    return Trained(network, folder.name, config.precision, nimg, config, evaluation, stored.get("data"))


def card(trained: Trained, weights: str = "ema") -> str | None:
    """What a reader of an export should know, in Markdown; None for a network that comes from no run."""
    config, data = trained.config, trained.data
    if config is None or data is None or not all(key in data for key in _ON_CARD):
        return None
    levels = ", ".join(f"{s:.4g}" for s in data["levels"])
    noisy = (
        f"{data['n_noisy']:,} noisy ones (sigma {levels} in units of [-1, 1])" if data["n_noisy"] else "no noisy ones"
    )
    size = sum(p.numel() for p in trained.network.parameters())
    lines = [
        f"# {data['name']}: {'one-step generator' if trained.one_step else 'denoiser'}",
        "",
        f"{trained.arch}, {size:,} parameters, images of {data['resolution']} pixels, {data['channels']} channel(s); "
        f"{'averaged' if weights == 'ema' else 'raw'} weights after {trained.nimg:,} images, seed {config.seed}.",
        f"Trained on {data['n_clean']:,} clean images and {noisy}; loss weight {config.weight}, draw {config.draw}.",
        "",
    ]
    if trained.one_step:
        identity, _, nimg = config.teacher.split("/")
        lines += [
            f"Distilled from weights {identity} (trained on {int(nimg):,} images). **It is no denoiser**: an image is "
            f"D({config.distill_sigma:g} z, {config.distill_sigma:g}) with z ~ N(0, I), one evaluation.",
            "Other samplers give nothing of use.",
        ]
    else:
        lines += ["D(x, sigma) estimates E[x_0 | x_0 + sigma z = x]; images come from the sampler in `ambient.json`."]
        if config.n_clean == 0:
            lines += ["No clean image was seen: nothing is learned below the lowest noise level of the data."]
    lines += ["", "`ambient generate` and `ambient evaluate` read this folder.", ""]
    return "\n".join(lines)


def export(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    weights: str = "ema",
    push: str | None = None,
) -> hub.Exported:
    """Write any source of `load_trained` in hub form to the directory `destination`; returns what was written.

    The file of weights is written first, the config last, each atomically. push: `ORGANISATION/NAME`, a repository of
    the Hugging Face hub that gets the directory as well. Raises UsageError if the directory holds another network, for
    a name that is none and without the extra `hub`, DataError where the hub refuses.
    """
    if push is not None:
        hub.check_repository(push)
    found = load_trained(source, weights=weights)
    written = hub.write_hub(
        found.network, destination, source=os.fspath(source), memory=found.memory(), card=card(found, weights)
    )
    return written if push is None else hub.upload(written, push)
