"""Small intact files of every kind but images: records, settings, columns of numbers, runs, networks, ledgers."""

from __future__ import annotations

import functools
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_files import rgb
from edm_pickles import Payload, Persistent, Stored, dumps_like_edm, legacy_storage
from samples import Sample

from ambient_theory.shared.files import read_sealed, write_sealed
from ambient_theory.shared.records import Record, write_records
from ambient_theory.simulation.cells import simulate
from ambient_theory.simulation.grid import SimulationConfig, plan
from ambient_theory.simulation.ledger import Ledger, SimulationCell
from ambient_train.data.prepare.prepare import Journal, _Chunk
from ambient_train.evaluation.statistics import FeatureStatistics
from ambient_train.interchange.load import export
from ambient_train.networks.precond import EDMPrecond
from ambient_train.runs.directory import RunDirectory
from ambient_train.sweep.grid import Grid, read_grid
from ambient_train.training import checkpoints

Files = dict[str, bytes]
SIMULATION = {"k": [2, 3], "mixes": ["clean", "10:90"], "seed": 0, "sigma_noisy": 2.0, "sizes": None}
"""What a simulation is of, for the claim on its folder."""


def _made(write: Callable[[Path], object]) -> Files:
    """The files that `write` puts into a folder, by their names below it."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        return {
            str(p.relative_to(name)): p.read_bytes()
            for p in sorted(Path(name).rglob("*"))
            if p.is_file() and p.name != "lock"
        }


def _each(reader: str, files: Mapping[str, bytes]) -> dict[str, Sample]:
    """Every file a sample of its own."""
    return {name: Sample(reader, {name: data}, name, (name,)) for name, data in files.items()}


# ------------------------------------------------------------------------------------------------------------ records


def _record(k: int, **changes: Any) -> Record:
    about: dict[str, Any] = {
        "source": "train",
        "dataset": "digits",
        "n_clean": (100, 400, 30)[k % 3],
        "n_noisy": (300, 0, 370)[k % 3],
        "sigma_n": (0.2, None, 0.4)[k % 3],
        "metric": "fd",
        "extractor": "pixels:e9c2b947",
        "value": 20.0 + k % 3 + 0.1 * (k // 3),
        "stderr": 0.5,
        "n_eval": 1000,
        "seed": k // 3,
        "config_hash": "7182b5ff",
        "duration_nimg": 16384,
        "method": {"weight": "x0", "draw": "sigma-first", "buffer": 1.05},
        "checkpoint": "last",
        "cell": f"cell {k % 3}",
        "regime": ("mixture", "clean", "mixture")[k % 3],
        "evaluation": {"n": 1000, "seed": 7, "extractors": ["pixels"], "sampler": {"steps": 12, "rho": 7.0}},
        "versions": {"python": "3.11"},
        "wall_s": 6.5,
        "extra": {"interval95": [19.0, 21.0], "floor": 0.7, "corruption": 0.5, "nimg": 16384},
    }
    return Record(**{**about, **changes})


def _by_level(k: int) -> list[Record]:
    about = {"metric": "denoise", "extractor": "none", "extra": {"images": "8c2f", "nimg": 16384}}
    return [
        _record(k, level=level, value=level**2 / (1 + level) * (1 + 0.02 * (k % 3)), stderr=1e-3 * level, **about)
        for level in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    ]


_PUBLISHED = {
    "source": "published",
    "extractor": "inception:paper",
    "metric": "fid",
    "stderr": None,
    "seed": None,
    "method": "ambient",
    "checkpoint": None,
    "evaluation": {},
}


def _tables() -> dict[str, list[Record]]:
    scores = [_record(k) for k in range(6)]
    return {
        "scores.jsonl": scores,
        "levels.jsonl": [r for k in range(6) for r in _by_level(k)],
        "published.jsonl": [
            *(_record(k, **_PUBLISHED) for k in range(3)),
            _record(0, **{**_PUBLISHED, "metric": "price"}, extra={"grade": "printed"}),
        ],
        "simulated.jsonl": [
            _record(k, source="simulate", metric="w1", extractor="none", extra=row) for k, row in enumerate(_rows())
        ],
        "packed.jsonl.gz": scores,
    }


@functools.cache
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(row for item in simulate([cell()]) for row in item.rows)


_OLD = {
    "schema": "ambient.result/1",
    "source": "simulate",
    "dataset": "gmm",
    "n_clean": 100,
    "n_noisy": 900,
    "sigma": 2.0,
    "metric": "w1",
    "extractor": "none",
    "value": 0.1,
    "stderr": 0.01,
    "n_eval": 50,
    "seed": 0,
    "config_hash": "7182b5ff",
    "reference": "truth",
    "extra": {"sigmas": [1.0, 2.0], "cell": "a", "method": "dmm"},
}


@functools.cache
def _record_files() -> Files:
    def write(root: Path) -> None:
        for name, rows in _tables().items():
            write_records(root / name, rows)

    return _made(write) | {"old.jsonl": json.dumps(_OLD).encode() + b"\n"}


def records() -> dict[str, Sample]:
    """Files of records, of both schemas."""
    return _each("records", _record_files())


def compared() -> dict[str, Sample]:
    """Files of records that `compare` has something to say about."""
    return _each("compare", {name: data for name, data in _record_files().items() if name != "old.jsonl"})


# ----------------------------------------------------------------------------------------------------------- settings

_CONFIG = """# a training
data = "digits"
preset = "digits"
max_images = 96
n_clean = 30
n_noisy = 66
sigma = 0.3
batch = 16
precision = "fp32"
weight = "optimal"
draw = "sigma-first"
duration_nimg = "1.5k"
score_at = [320, 640]
lr = 2e-3
xflip = true
network = {model_channels = 4, channel_mult = [1, 2], emb_channels = 8}

[evaluation]
n = 40
extractors = ["pixels"]
metrics = ["fd", "kid"]
denoise = 16
sampler = {steps = 2, sigma_max = 20.0, solver = "heun"}
"""
_SHARES = """data = "photos/"
resolution = 32
corruption = 0.9
sigma = 0.2
arch = "ddpmpp"
consistency = 1.0
consistency_samples = 4
consistency_form = "paper"
holdout = 0.1
[evaluation]
best = false
"""
_GRID = """name = "table1"
description = "a small grid"
seeds = [0, 1]
[base]
data = "digits"
max_images = 96
duration_nimg = 320
network = {model_channels = 4, channel_mult = [1, 2]}
evaluation = {n = 40, extractors = ["pixels"], sampler = {steps = 2}}
[[cell]]
name = "clean"
n_clean = 96
[[cell]]
name = "mixture"
n_clean = 30
n_noisy = 66
sigma = [0.1, 0.3]
weight = "optimal"
[[cell]]
name = "one step"
distill = "clean"
seeds = [3]
lr = 1e-3
"""
_STATED = """seeds = [0]
[base]
n_images = 60000
img_channels = 3
img_resolution = 32
data = "cifar10"
data_from = "its page"
[[cell]]
name = "a"
corruption = 0.5
sigma = 0.2
"""


def configs() -> dict[str, Sample]:
    """Config files of trainings."""
    return _each("config", {"train.toml": _CONFIG.encode(), "shares.toml": _SHARES.encode()})


def grids() -> dict[str, Sample]:
    """Grid files of sweeps."""
    return _each("grid", {"table1.toml": _GRID.encode(), "stated.toml": _STATED.encode()})


# ------------------------------------------------------------------------------------------------------------ numbers


def _columns(levels: str) -> Files:
    """The same columns x and the noise as files of every kind."""
    rng = np.random.default_rng(3)
    x, s = rng.normal(size=12).round(4), rng.uniform(0.5, 2, 12).round(3)
    pairs = list(zip(x.tolist(), s.tolist(), strict=True))

    def arrays(root: Path) -> None:
        np.savez(root / "arrays.npz", **{"x": x, levels: s})
        np.savez_compressed(root / "packed.npz", **{"x": x.astype("f4"), levels: s, "more": rng.normal(size=(12, 2))})

    return {
        "comma.csv": (f"x,{levels}\n" + "".join(f"{a},{b}\n" for a, b in pairs)).encode(),
        "decimal.csv": (f"x;{levels};name\n" + "".join(f"{a};{b};a b\n" for a, b in pairs)).replace(".", ",").encode(),
        "tab.tsv": (f"# notes\nx\t{levels}\n" + "".join(f"{a}\t{b}\n" for a, b in pairs)).encode(),
        "lines.jsonl": "".join(json.dumps({"x": a, levels: b}) + "\n" for a, b in pairs).encode(),
        **_made(arrays),
    }


def fits() -> dict[str, Sample]:
    """Files that `fit-gmm` reads; those without names have nothing but samples."""

    def arrays(root: Path) -> None:
        np.save(root / "one.npy", np.arange(9.0))
        np.save(root / "two.npy", np.arange(18, dtype=">f4").reshape(9, 2))

    bare = {"bare.txt": b"0.5\n1.5\n\n2.25\n-1e3\n", "bare.dat": b"0.5 1.5\n1.5 2\n2.25 3e2\n", **_made(arrays)}
    every = ("fit-gmm of all columns",)
    return _each("fit-gmm", _columns("s")) | {
        name: Sample("fit-gmm", {name: data}, name, (name,), ways=every) for name, data in bare.items()
    }


def noise_files() -> dict[str, Sample]:
    """Files that `simulate-gmm --noise-file` reads."""

    def arrays(root: Path) -> None:
        np.save(root / "one.npy", np.linspace(0.5, 2, 9))

    names = ("comma.csv", "decimal.csv", "arrays.npz", "packed.npz")
    bare = {"bare.txt": b"0.5\n1.5\n2.25\n", "lines.jsonl": b'{"s": 1.0}\n{"s": 2}\n', **_made(arrays)}
    return _each("noise file", {k: v for k, v in _columns("s").items() if k in names} | bare)


def statistics() -> dict[str, Sample]:
    """Files of reference statistics, ours and as EDM writes them."""
    rows = np.random.default_rng(5).normal(size=(20, 4))

    def write(root: Path) -> None:
        FeatureStatistics.from_features(rows, "pixels:e9c2b947").save(root / "own.npz")
        np.savez(root / "edm.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
        np.savez_compressed(root / "single.npz", mu=rows.mean(0).astype("f4"), sigma=np.cov(rows.T).astype("f4"))

    return _each("statistics", _made(write))


# ------------------------------------------------------------------------------------------------- runs and networks


@functools.cache
def network() -> EDMPrecond:
    """A denoiser of 8 x 8 images with the weights that seed 0 gives."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8}
        return EDMPrecond(img_resolution=8, img_channels=1, model_type="SmallUNet", **size).eval()


@functools.cache
def _run() -> Files:
    import tiny_run

    def write(root: Path) -> None:
        path = root / "run"
        job, directory = tiny_run.job(), RunDirectory(path)
        directory.claim(job, {})
        fixed = {"created": "2026-11-30T00:00:00+00:00", "folder": "/", "command": ["ambient", "train"]}
        fixed |= {"versions": {}, "hardware": {}}
        write_sealed(directory.manifest_file, read_sealed(directory.manifest_file) | fixed)
        groups = {"network": network().state_dict(), "ema": {k: p.detach() for k, p in network().named_parameters()}}
        for nimg in (160, 320):
            meta = {"nimg": nimg, "architecture": network().config, "best": [160, 3.5]}
            checkpoints.save(directory.checkpoints, checkpoints.Checkpoint(groups, meta))
        for nimg in range(16, 336, 16):
            directory.append_metrics({"nimg": nimg, "loss": 2.0 / nimg, "wall_s": 0.1, "heldout_denoise": 31.5})
        scores = [_record(0), *_by_level(0), _record(0, metric="nats", extractor="none", value=31.5)]
        directory.add_scores(job.config, job.evaluation, 320, scores, 1.5)
        directory.skip((16, 48))

    return _made(write)


def runs() -> dict[str, Sample]:
    """Run directories: each file of it damaged; seals and hashes may be made to fit again."""
    files = _run()
    light = {name: data for name, data in files.items() if "000160" not in name}
    inner = [name for name in light if name.endswith((".safetensors", ".json")) and "checkpoints" in name]
    top = [name for name in light if "checkpoints" not in name]
    return {
        "manifest and records": Sample("run", light, "run", tuple(top), sealed=True),
        "checkpoint": Sample("run", light, "run", tuple(inner), sealed=True),
        "one of two checkpoints": Sample("run", files, "run", tuple(inner), sealed=True),
    }


def exports() -> dict[str, Sample]:
    """Networks in hub form, of a run and of none, with old weights, too."""

    def write(root: Path) -> None:
        for name, data in _run().items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        export(root / "run", root / "hub")

    hub = {name: data for name, data in _made(write).items() if name.startswith("hub")}
    bare = {name: data for name, data in hub.items() if name.endswith(("config.json", ".safetensors"))}
    old = io.BytesIO()
    torch.save(network().state_dict(), old)
    before = {"hub/config.json": hub["hub/config.json"], "hub/pytorch_model.bin": old.getvalue()}
    return {
        "export of a run": Sample("export", hub, "hub", tuple(hub), sealed=True),
        "bare network": Sample("export", bare, "hub", tuple(bare)),
        "old weights": Sample("export", before, "hub", tuple(before)),
    }


def _persistent(module: torch.nn.Module, name: str = "Module", **state: Any) -> Persistent:
    """A module as EDM's trainer pickles it."""

    def tensor(t: torch.Tensor) -> Payload:
        raw = t.detach().contiguous().numpy().tobytes()
        stored = Stored(legacy_storage(torch.FloatStorage, t.numel(), raw))
        return Payload(torch._utils._rebuild_tensor_v2, stored, 0, tuple(t.shape), t.stride(), False, {})

    own = {
        "_parameters": {k: tensor(p) for k, p in module.named_parameters(recurse=False)},
        "_buffers": {k: tensor(b) for k, b in module.named_buffers(recurse=False)},
        "_modules": {k: _persistent(m) for k, m in module.named_children()},
    }
    return Persistent({"class_name": name, "state": own | state})


def snapshots() -> dict[str, Sample]:
    """A network snapshot of EDM's trainer."""
    size = {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8, "model_type": "SmallUNet"}
    about = {"_init_kwargs": {**size, "sigma_data": 0.5}, "img_resolution": 8, "img_channels": 1, "_init_args": ()}
    root = {
        "ema": _persistent(network(), "EDMPrecond", **about),
        "dataset_kwargs": {"path": "x.zip", "resolution": 8},
        "loss_fn": None,
    }
    return _each("EDM snapshot", {"network-snapshot-000.pkl": dumps_like_edm(root)})


def weights() -> dict[str, Sample]:
    """Flat files of weights as `torch.save` writes them, now and before 1.6."""
    state = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.zeros(4, dtype=torch.float16)}
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(state, new)
    torch.save({"a": state["a"]}, old, _use_new_zipfile_serialization=False)
    data = old.getvalue()
    for k, address in enumerate(re.findall(rb"\d{14,}", data)):  # a storage is named after its place in memory
        data = data.replace(address, b"%0*d" % (len(address), k))
    return _each("weights", {"new.pth": new.getvalue(), "old.pth": data})


class _Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean(dim=[2, 3])


def torchscript() -> dict[str, Sample]:
    """A TorchScript file of features."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(_Mean()), buffer)
    return _each("torchscript", {"features.pt": buffer.getvalue()})


# ------------------------------------------------------------------------------------------ what other commands left


@functools.cache
def cell() -> SimulationCell:
    """A cell of a simulation that takes a moment."""
    return plan(SimulationConfig(k=(2,), n=(100,), reps=4, mixes=("10:90",), estimators=("mean-only",))).cells[0]


@functools.cache
def grid() -> Grid:
    """The grid of `sweep_folders`."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "g.toml"
        path.write_text('[base]\ndata = "digits"\n' + "".join(f'[[cell]]\nname = "cell {k}"\n' for k in range(3)))
        return read_grid(path)


def ledgers() -> dict[str, Sample]:
    """The ledger of a simulation."""
    files = _made(lambda root: Ledger(root / "cells").store(cell(), {"rows": list(_rows()), "wall_s": 0.5}))
    return {"ledger": Sample("ledger", files, "cells", tuple(files), sealed=True)}


WORK = "5c0f"
"""Of what the work of `journals` is."""


def _journal(root: Path) -> Journal:
    journal = Journal(root, WORK)
    for k in range(3):
        ids = np.arange(4 * k, 4 * k + 4)
        pixels = rgb(4, 8, seed=k)
        journal.append(_Chunk(pixels, ids, np.ones(4), Counter({"grey": k}), [("a.png", "cut")]))
    return journal


@functools.cache
def journal_lines() -> list[dict[str, Any]]:
    """What the journal of `journals` vouches for."""
    with tempfile.TemporaryDirectory() as name:
        _journal(Path(name))
        return Journal(Path(name), WORK).lines


def journals() -> dict[str, Sample]:
    """Unfinished work of `data prepare`."""
    files = {f"w/{name}": data for name, data in _made(_journal).items()}
    return {"journal": Sample("journal", files, "w", tuple(files))}


def claims() -> dict[str, Sample]:
    """The folder of a simulation, with the config that it is of."""
    body = {"schema": "ambient.simulation-config/1", "config": SIMULATION}
    files = {"d/simulation.json": json.dumps(body, indent=1).encode()}
    return {"simulation.json": Sample("claim", files, "d", tuple(files))}


def sweep_folders() -> dict[str, Sample]:
    """The folder of a sweep, with its records."""
    files = {"d/records.jsonl": _record_files()["scores.jsonl"]}
    return {"records of a sweep": Sample("sweep folder", files, "d", tuple(files))}
