"""Every reader of files that a user gives: how its files are read, what they are, and what decides its results.

Adding a reader is adding an entry here and its samples in `samples` or `other_samples`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import other_samples
import samples
from confined import LIMITS, READ, SKIPPED, Fault, Limits, Way, check_sentence
from samples import Sample

import ambient_train
from ambient_theory.compare.commands.common import about, load
from ambient_theory.compare.findings import gather_findings
from ambient_theory.own_data.options import FitConfig
from ambient_theory.own_data.samples import samples_of_file
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import finite
from ambient_theory.shared.options import Given
from ambient_theory.shared.outdirs import claim
from ambient_theory.shared.reading import read
from ambient_theory.simulation.cells import to_records
from ambient_theory.simulation.commands import noise_of_file
from ambient_theory.simulation.grid import noise_settings
from ambient_theory.simulation.ledger import Ledger
from ambient_train.data.prepare.prepare import Journal, PrepareConfig, prepare
from ambient_train.data.readers import open_source
from ambient_train.evaluation.extractors.torchscript import TorchScriptFeatures
from ambient_train.evaluation.statistics import FeatureStatistics
from ambient_train.interchange.load import card, load_trained
from ambient_train.runs.directory import RunDirectory
from ambient_train.safe_pickle import read_weights
from ambient_train.settings.as_file import toml_of
from ambient_train.settings.layers import NetworkFlags, Start, flags_over_file
from ambient_train.sweep.grid import read_grid
from ambient_train.sweep.report import check_folder
from ambient_train.tasks.config import show_config
from ambient_train.tasks.runs import list_runs

_CHUNK = 64
_PACKAGES = Path(ambient_train.__file__).parents[1]


@dataclass(frozen=True)
class Reader:
    """ways: how its files are read; one that stands there more often is taken more often. samples: makes them, by name.
    inputs: of a whole campaign. code: files and folders of ours that decide what becomes of an input. libraries: those
    of others."""

    samples: Callable[[], Mapping[str, Sample]]
    ways: tuple[str, ...]
    inputs: int
    code: tuple[str, ...]
    libraries: tuple[str, ...] = ("numpy",)
    limits: Limits = LIMITS

    def identity(self, table: Mapping[str, Sample]) -> dict[str, Any]:
        """What its results are of: its code, its samples and the damage as one hash; the versions of the libraries."""
        digest = hashlib.sha256(repr((self.ways, self.limits)).encode())
        for root in (*(_PACKAGES / name for name in self.code), *_DAMAGE):
            for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
                digest.update(path.read_bytes())
        for sample in table.values():
            for name, data in sample.files.items():
                dated = name.endswith((".h5", ".zip")) and "tests/torture/samples.py" in self.code
                digest.update(f"{name} {len(data)} ".encode() + (b"" if dated else data))
        versions = {name: importlib.metadata.version(name) for name in self.libraries}
        return {"code": digest.hexdigest()[:16], "versions": versions}


_DAMAGE = [
    Path(__file__).with_name(f"{name}.py")
    for name in ("blind", "text_mutations", "binary_mutations", "mutations", "seals", "confined", "files")
]


# ------------------------------------------------------------------------------------------------------------- images


def read_images(spec: str, dest: Path) -> str:
    """All images of a source, and its columns."""
    source = open_source(spec)
    if source.question:
        raise DataError(f"{spec}: {source.question}")
    for note in source.notes:
        check_sentence(note)
    shape: tuple[int, ...] | None = None
    for start in range(0, source.count, _CHUNK):
        images = source.read(np.arange(start, min(start + _CHUNK, source.count)))
        if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or not np.isfinite(images).all():
            raise Fault("no images", f"{images.dtype} {images.shape}")
        if images.shape[1:] != (shape or images.shape[1:]):
            raise Fault("no images", f"{images.shape[1:]} after {shape}")
        shape = images.shape[1:]
    for column in (source.labels, source.sigma_n, source.heldout, source.group):
        if column is not None and column.shape != (source.count,):
            raise Fault("no images", f"a column of shape {column.shape} for {source.count} images")
    return READ


def _prepared(skip_bad: bool) -> Way:
    def way(spec: str, dest: Path) -> str:
        result = prepare(PrepareConfig(source=spec, dest=dest, skip_bad=skip_bad))
        for name, reason in result.skipped:
            check_sentence(f"{name}: {reason}")
        return SKIPPED if result.skipped else READ

    return way


# ------------------------------------------------------------------------------------------------- records, settings


def _read_records(spec: str, dest: Path) -> str:
    for record in read(spec).records:
        json.dumps(record.to_dict())
    return READ


def _compare(spec: str, dest: Path) -> str:
    """What `ambient compare` says of the records."""
    with about([Path(spec)]):
        json.dumps(finite(gather_findings(load([Path(spec)]).records).to_dict()), allow_nan=False)
    return READ


def _read_grid(spec: str, dest: Path) -> str:
    for cell in read_grid(Path(spec)).cells:
        toml_of(cell.settings)
    return READ


def _read_config(spec: str, dest: Path) -> str:
    toml_of(flags_over_file(Path(spec), network=Given(NetworkFlags, {})))
    return READ


# ------------------------------------------------------------------------------------------------------------ numbers


def _fit(**options: Any) -> Way:
    def way(spec: str, dest: Path) -> str:
        found = samples_of_file(Path(spec), FitConfig(**options))
        if found.s is not None and not (np.isfinite(found.s).all() and (found.s > 0).all()):
            raise Fault("no noise", f"{found.s}")
        if not np.isfinite(found.x).all():
            raise Fault("no samples", f"{found.x}")
        return READ

    return way


def _noise_file(spec: str, dest: Path) -> str:
    path = Path(spec)
    noise_settings(noise_of_file(path, "s" if path.suffix in (".csv", ".npz") else None))
    return READ


def _statistics(spec: str, dest: Path) -> str:
    found = FeatureStatistics.load(spec)
    if found.cov.shape != (found.dim, found.dim) or not np.isfinite(found.cov).all():
        raise Fault("no statistics", f"{found.cov.shape}")
    return READ


# ------------------------------------------------------------------------------------------------- runs and networks


def _list_runs(spec: str, dest: Path) -> str:
    listed = list_runs(Path(spec))
    json.dumps(listed.to_dict(), allow_nan=False)
    for run in listed.runs:
        if run.state == "damaged":
            raise DataError(run.message)
        RunDirectory(run.path).read_metrics()
    return READ


def _load(spec: str, dest: Path) -> str:
    """The network of a run, a checkpoint, an export or a snapshot, and what it remembers."""
    trained = load_trained(spec)
    for name, tensor in trained.network.state_dict().items():
        if not tensor.is_floating_point():
            raise Fault("no network", name)
    card(trained)
    trained.memory()
    for complaint in trained.complaints:
        check_sentence(complaint)
    return SKIPPED if trained.complaints else READ


def _show_config(spec: str, dest: Path) -> str:
    toml_of(show_config(spec, Given(Start, {}), network=Given(NetworkFlags, {})).settings)
    return READ


def _read_weights(spec: str, dest: Path) -> str:
    read_weights(Path(spec), spec)
    return READ


def _torchscript(spec: str, dest: Path) -> str:
    TorchScriptFeatures(spec)(np.zeros((2, 3, 8, 8), np.uint8))
    return READ


# ------------------------------------------------------------------------------------------ what other commands left


def _ledger(spec: str, dest: Path) -> str:
    """A cell of a simulation is taken from its ledger, or would be run again."""
    found = Ledger(spec).load(other_samples.cell())
    to_records([] if found is None else found["rows"])
    return SKIPPED if found is None else READ


def _journal(spec: str, dest: Path) -> str:
    """Unfinished work of `data prepare`: what its journal vouches for is what was written."""
    work = dest.with_name(dest.name + ".partial")
    shutil.copytree(spec, work)
    lines = Journal(work, other_samples.WORK).lines
    whole = other_samples.journal_lines()
    if lines != whole[: len(lines)]:
        raise Fault("damage is believed", str(lines)[:200])
    return READ if lines == whole else SKIPPED


def _claim(spec: str, dest: Path) -> str:
    folder = Path(spec)
    claim(folder, "simulation.json", "ambient.simulation-config/1", other_samples.SIMULATION, "simulation")
    return READ


def _sweep_folder(spec: str, dest: Path) -> str:
    check_folder(Path(spec), other_samples.grid())
    return READ


WAYS: dict[str, Way] = {
    "read": read_images,
    "prepared": _prepared(False),
    "skipped": _prepared(True),
    "records": _read_records,
    "compare": _compare,
    "grid": _read_grid,
    "config": _read_config,
    "fit-gmm with a column of noise": _fit(noise="s", columns=("x",)),
    "fit-gmm of all columns": _fit(noise="0.5"),
    "fit-gmm without missing rows": _fit(noise="s", columns=("x",), skip_missing=True, noise_is="variance"),
    "noise of a simulation": _noise_file,
    "statistics": _statistics,
    "runs": _list_runs,
    "load": _load,
    "config show": _show_config,
    "weights": _read_weights,
    "torchscript": _torchscript,
    "ledger": _ledger,
    "journal": _journal,
    "claim": _claim,
    "sweep folder": _sweep_folder,
}

_OF_IMAGES = ("read",) * 6 + ("prepared", "skipped")
_DATA = ("ambient_train/data", "ambient_train/safe_pickle.py", "tests/torture/samples.py")
"""With the code of their samples, since HDF5 writes the time of day into some."""
_DATA += tuple(f"ambient_theory/shared/{name}.py" for name in ("errors", "limits", "npy", "parsing", "tables"))
_LIBRARIES = ("astropy", "h5py", "nibabel", "numpy", "Pillow", "tifffile")
_SHARED = "ambient_theory/shared"


def _images(inputs: int) -> Reader:
    return Reader(dict, _OF_IMAGES, inputs, _DATA, _LIBRARIES, Limits(memory=2 * 2**30))


def _of(name: str, reader: Reader) -> Reader:
    """With the samples of that name among all."""
    return dataclasses.replace(reader, samples=lambda: {k: s for k, s in samples.samples().items() if s.reader == name})


_NETWORKS = (_SHARED, *(f"ambient_train/{name}" for name in ("interchange", "networks", "runs", "settings")))
_NETWORKS += ("ambient_train/training/checkpoints.py", "ambient_train/safe_pickle.py", "ambient_train/tasks/config.py")
_NETWORKS += ("ambient_train/tasks/runs.py",)
_EVALUATION = (_SHARED, "ambient_train/evaluation")
_TORCH = ("numpy", "torch", "safetensors")
_SETTINGS = (_SHARED, "ambient_train/settings", "ambient_train/sweep/grid.py")
_COMPARE = (_SHARED, "ambient_theory/compare", "ambient_theory/bounds")
_SIMULATION = (_SHARED, "ambient_theory/simulation", "ambient_theory/bounds", "ambient_theory/mixtures")
_FITS = ("fit-gmm with a column of noise", "fit-gmm without missing rows")

READERS: dict[str, Reader] = {
    **{
        name: _of(name, _images(inputs))
        for name, inputs in (
            *(("tiff", 3000), ("hdf5", 2000), ("fits", 2500), ("nifti", 2000), ("png16", 2000), ("npz", 3000)),
            *(("npy", 2500), ("lmdb", 2000), ("folder", 2000), ("zip", 2000), ("dataset.csv", 3000)),
            *(("pictures", 2500), ("dataset.json", 3000), ("noise arrays", 3000), ("idx", 3000), ("cifar", 3000)),
        )
    },
    "records": Reader(other_samples.records, ("records",), 8000, (_SHARED,)),
    "compare": Reader(other_samples.compared, ("compare",), 4000, _COMPARE),
    "grid": Reader(other_samples.grids, ("grid",), 6000, _SETTINGS),
    "config": Reader(other_samples.configs, ("config", "config show"), 6000, _SETTINGS),
    "fit-gmm": Reader(other_samples.fits, _FITS, 6000, (_SHARED, "ambient_theory/own_data")),
    "noise file": Reader(other_samples.noise_files, ("noise of a simulation",), 4000, _SIMULATION),
    "statistics": Reader(other_samples.statistics, ("statistics",), 3500, _EVALUATION),
    "run": Reader(other_samples.runs, ("runs", "load", "config show", "records"), 6000, _NETWORKS, _TORCH),
    "export": Reader(other_samples.exports, ("load",), 5000, _NETWORKS, _TORCH),
    "EDM snapshot": Reader(other_samples.snapshots, ("load",), 4000, _NETWORKS, _TORCH),
    "weights": Reader(other_samples.weights, ("weights",), 2500, _NETWORKS, _TORCH),
    "torchscript": Reader(other_samples.torchscript, ("torchscript",), 2000, _EVALUATION, _TORCH),
    "ledger": Reader(other_samples.ledgers, ("ledger",), 3000, _SIMULATION),
    "journal": Reader(other_samples.journals, ("journal",), 2500, (_SHARED, "ambient_train/data/prepare")),
    "claim": Reader(other_samples.claims, ("claim",), 2500, (_SHARED,)),
    "sweep folder": Reader(other_samples.sweep_folders, ("sweep folder",), 2500, _SETTINGS),
}
