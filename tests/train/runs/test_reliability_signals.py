"""A signal in a simulation, a generation or an evaluation: the documented exit code, and the same command continues."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoke import ambient
from PIL import Image

from ambient_theory.simulation.ledger import Ledger
from ambient_train.diffusion import generate as generating_images
from ambient_train.tasks import evaluate as evaluating

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 75)]


def signalled(function: Callable[..., Any], number: signal.Signals, call: int) -> Callable[..., Any]:
    """`function`, sending a signal to this process at its `call`-th call, before it does anything."""
    calls = []

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return function(*arguments, **keywords)

    return wrapped


@pytest.mark.parametrize(("number", "code"), CODES)
def test_simulation_keeps_its_finished_cells_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    common = ["--family", "separated", "--n", "1e3,1e4,1e5", "--reps", 20, "--quiet"]
    assert ambient("simulate-gmm", *common, "--outdir", tmp_path / "whole").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "store", signalled(Ledger.store, number, 4))
        stopped = ambient("simulate-gmm", *common, "--outdir", tmp_path / "part")
    assert stopped.exit_code == code, stopped.output
    assert not (tmp_path / "part" / "records.jsonl").exists()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "part").rglob("result.json")}
    assert len(kept) == 3
    assert ambient("simulate-gmm", *common, "--outdir", tmp_path / "part").exit_code == 0
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())
    values = [
        [json.loads(line)["value"] for line in (tmp_path / name / "records.jsonl").read_text().splitlines()]
        for name in ("whole", "part")
    ]
    assert values[0] == values[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    config = folder / "tiny.toml"
    config.write_text(
        'duration_nimg = 32\nbatch = 16\nprecision = "fp32"\n'
        "network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }\n"
        'evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, best = false,'
        " sampler = { steps = 2 } }\n"
    )
    path = folder / "run"
    result = ambient("train", "--config", config, "--outdir", path, "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.parametrize(("number", "code"), CODES)
def test_generation_leaves_whole_images_and_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path, number: signal.Signals, code: int
) -> None:
    command = ["generate", run, "--outdir", tmp_path / "images", "--seeds", "0-9", "--device", "cpu", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", signalled(Image.Image.save, number, 5))
        stopped = ambient(*command)
    assert stopped.exit_code == code, stopped.output
    early = {p.name: np.asarray(Image.open(p)) for p in (tmp_path / "images").glob("*.png")}
    assert len(early) == 4
    assert ambient(*command).exit_code == 0
    final = {p.name: np.asarray(Image.open(p)) for p in (tmp_path / "images").glob("*.png")}
    assert len(final) == 10
    assert all(np.array_equal(final[name], image) for name, image in early.items())


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize(("module", "name"), [(generating_images, "sample"), (evaluating, "score_images")])
def test_evaluation_writes_nothing_half_and_can_be_repeated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
    module: Any,
    name: str,
    number: signal.Signals,
    code: int,
) -> None:
    command = ["evaluate", run, "--n", 40, "--extractor", "pixels", "--device", "cpu", "--quiet", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, signalled(getattr(module, name), number, 1))
        stopped = ambient(*command, "--outdir", tmp_path / "scores")
    assert stopped.exit_code == code, stopped.output
    assert not (tmp_path / "scores").exists()
    assert "Traceback" not in stopped.output
    assert ambient(*command, "--outdir", tmp_path / "scores").exit_code == 0
    assert (tmp_path / "scores" / "records.jsonl").exists()
