"""A training small enough to be killed many times: 96 digits, a network of 4 channels, 40 generated images."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch

from ambient_theory.shared.progress import Progress
from ambient_train.data.load import ImageSet, load_images
from ambient_train.diffusion.sampling import SamplerConfig
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.resolve import Job
from ambient_train.runs.run import execute
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.run_options import RunOptions, Schedule
from ambient_train.tasks import train as workflow
from ambient_train.training import checkpoints
from cli import app

BATCH, DURATION, EVERY = 16, 320, 32
OPTIONS = RunOptions(checkpoint_nimg=EVERY, tick_nimg=BATCH)
EVALUATION = EvalConfig(
    n=40,
    extractors=("pixels",),
    metrics=("fd",),
    denoise=16,
    sampler=SamplerConfig(steps=2, sigma_min=0.01, sigma_max=20.0),
)


@functools.cache
def source() -> ImageSet:
    return load_images("digits", split="train", resolution=None, holdout=None, max_images=96)


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "data": "digits",
        "max_images": 96,
        "data_hash": source().content_hash[:16],
        "n_clean": 30,
        "n_noisy": 66,
        "sigma": 0.3,
        "batch": BATCH,
        "lr_ramp_nimg": 64,
        "xflip": True,
        "weight": "optimal",
        "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    }
    return TrainConfig.from_dict({**settings, **changes})


def job(duration: int = DURATION, **changes: Any) -> Job:
    return Job(config(**changes), source(), EVALUATION, Schedule(duration_nimg=duration), "digits")


def run(path: Path, options: RunOptions = OPTIONS, *, duration: int = DURATION, **keywords: Any) -> Any:
    torch.set_num_threads(1)
    changes = keywords.pop("changes", {})
    return execute(job(duration, **changes), path, options, **keywords)


@contextlib.contextmanager
def full_disk(number: int) -> Iterator[None]:
    """The disk fills (`errno` `number`) in the middle of a file of the third checkpoint and stays full."""
    flushed, opened = checkpoints.flushed, []

    @contextlib.contextmanager
    def full(file: IO[bytes]) -> Iterator[IO[bytes]]:
        opened.append(file)
        with flushed(file) as inner:
            if len(opened) >= 13:
                inner.write(b"half")
                raise OSError(number, os.strerror(number), str(file.name))
            yield inner

    checkpoints.flushed = full  # type: ignore[assignment]
    try:
        yield
    finally:
        checkpoints.flushed = flushed


def final(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint: weights, averages, optimiser, V."""
    checkpoint, complaints = checkpoints.newest_valid(path / "checkpoints")
    assert checkpoint is not None
    assert complaints == []
    return {f"{group}.{name}": t for group, tensors in checkpoint.groups.items() for name, t in tensors.items()}


def metrics(path: Path) -> list[tuple[float, ...]]:
    """The columns of metrics.jsonl that do not depend on the clock."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [tuple(v for k, v in line.items() if k not in ("img_per_s", "wall_s")) for line in lines]


def score(path: Path) -> list[float]:
    stored = RunDirectory(path).result()
    assert stored is not None
    return [record["value"] for point in stored["points"] for record in point["records"]]


def assert_same_run(a: Path, b: Path) -> None:
    """Bit-equal weights, averages, optimiser and V, and the same metrics and scores."""
    left, right = final(a), final(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
    assert metrics(a) == metrics(b)
    assert score(a) == score(b)


SETTINGS = """
data = "digits"
max_images = 96
n_clean = 30
n_noisy = 66
sigma = 0.3
batch = 16
precision = "fp32"
weight = "optimal"
duration_nimg = 320
network = {model_channels = 4, channel_mult = [1, 2], emb_channels = 8}
[evaluation]
n = 40
extractors = ["pixels"]
metrics = ["fd"]
denoise = 16
sampler = {steps = 2}
"""


@functools.cache
def _warm() -> None:
    """One short training here, so that every fork finds images, references and modules in memory."""
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "run", RunOptions(), duration=BATCH)


def command(
    path: Path, *options: str, listener: Callable[[Progress], None] | None = None, before: Callable[[], object] = int
) -> tuple[int, str]:
    """Exit status and stderr of `ambient train` on SETTINGS with run directory `path`, in a forked process.

    listener: hears the progress in that process, e.g. to send it a signal. before: called there first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    toml, talk = path.parent / "tiny.toml", path.parent / "stderr.txt"
    toml.write_text(SETTINGS)
    _warm()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(os.open(talk, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            torch.set_num_threads(1)
            before()
            if listener is not None:
                workflow.progress_listener = lambda quiet: contextlib.nullcontext(listener)  # type: ignore[assignment]
            app(["train", "--config", str(toml), "--outdir", str(path), *options])
            status = 0
        except SystemExit as leave:
            status = int(leave.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), talk.read_text()


def send(number: int, phase: str, done: int = 0, times: int = 1) -> Callable[[Progress], None]:
    """A listener that sends its own process a signal when a phase has come so far."""

    def listen(progress: Progress) -> None:
        if progress.phase == phase and progress.done >= done:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return listen


def expected_values(run: Path) -> dict[tuple[str, int], float]:
    """What a logger is told of a run: everything of metrics.jsonl and of the scores, by (name, images)."""
    out = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        out |= {(f"train/{k}", line["nimg"]): v for k, v in line.items() if k != "nimg"}
    for point in json.loads((run / "result.json").read_text())["points"]:
        for r in point["records"]:
            head = "score-heldout-best" if r["checkpoint"] == "heldout-best" else "score"
            what = r["extractor"].split(":")[0] if r["level"] is None else f"{r['level']:.3g}"
            out[f"{head}/{r['metric']}/{what}/{r['reference']}", point["nimg"]] = r["value"]
    return out
