"""Loggers hear what metrics.jsonl holds and the scores; they are imported only when asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_run import expected_values
from typer.testing import CliRunner, Result

from ambient_theory.shared.errors import StoppedError
from ambient_train.runs import session
from cli import app

TENSORBOARD = "torch.utils.tensorboard"


def train(config: Path, out: Path, *more: object) -> Result:
    arguments = ["train", "--config", config, "--outdir", out, "--device", "cpu", "--quiet", *more]
    return CliRunner().invoke(app, [str(a) for a in arguments])


class FakeWriter:
    """Takes the calls of a SummaryWriter, as its documentation has them."""

    made: list[FakeWriter]

    def __init__(self, log_dir: str, purge_step: int | None = None):
        self.log_dir, self.purge_step, self.closed = log_dir, purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars.append((tag, scalar_value, global_step))

    def flush(self) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True


class FakeRun:
    def __init__(self, **settings: Any):
        self.settings, self.exit_code = settings, None
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, data: dict[str, float], step: int) -> None:
        self.lines.append((step, dict(data)))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> list[FakeWriter]:
    FakeWriter.made = []
    module = ModuleType(TENSORBOARD)
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, TENSORBOARD, module)
    return FakeWriter.made


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    runs: list[FakeRun] = []

    def init(**settings: Any) -> FakeRun:
        assert (Path(settings["dir"]) / "manifest.json").exists()  # claimed first
        runs.append(FakeRun(**settings))
        return runs[-1]

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_both_loggers_get_every_metric_and_score(
    tmp_path: Path, tiny_config: Path, tensorboard: list[FakeWriter], wandb: list[FakeRun]
) -> None:
    out = tmp_path / "run"
    result = train(tiny_config, out, "--log", "tensorboard", "--log", "wandb", "--log", "wandb")
    assert result.exit_code == 0, result.output
    wanted = expected_values(out)
    for head in ("score/", "score-heldout-best/"):
        assert sum(name.startswith(f"{head}fd/") for name, _ in wanted) == 2
        assert sum(name.startswith(f"{head}denoise/") for name, _ in wanted) == 16
    assert sum(name == "train/loss" for name, _ in wanted) == 6
    (writer,) = tensorboard
    assert {(tag, step): value for tag, value, step in writer.scalars} == wanted
    assert writer.closed
    assert Path(writer.log_dir).parent == out
    (run,) = wandb
    assert {(k, step): v for step, line in run.lines for k, v in line.items()} == wanted
    assert run.exit_code == 0
    assert run.settings["config"]["batch"] == 16


def test_a_run_that_is_done_opens_no_logger(
    tmp_path: Path, tiny_config: Path, tensorboard: list[FakeWriter], wandb: list[FakeRun]
) -> None:
    out = tmp_path / "run"
    assert train(tiny_config, out).exit_code == 0
    assert train(tiny_config, out, "--log", "tensorboard", "--log", "wandb").exit_code == 0
    assert tensorboard == []
    assert wandb == []


def test_a_continued_run_purges_what_lies_beyond_its_checkpoint_and_keeps_its_identifier(
    tmp_path: Path,
    tiny_config: Path,
    tensorboard: list[FakeWriter],
    wandb: list[FakeRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, both = tmp_path / "run", ("--log", "tensorboard", "--log", "wandb")
    leave = session.Session._write_metrics

    def stop(self: session.Session, end: Any, rate: float, heldout: float | None) -> None:
        leave(self, end, rate, heldout)
        if end.nimg == 64:  # before the first checkpoint
            raise StoppedError("enough")

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "_write_metrics", stop)
        assert train(tiny_config, out, *both).exit_code == 75
    assert train(tiny_config, out, *both).exit_code == 0
    assert train(tiny_config, out, "--duration", 128, *both).exit_code == 0
    assert [w.purge_step for w in tensorboard] == [1, 1, 97]
    assert [r.exit_code for r in wandb] == [1, 0, 0]
    assert len({r.settings["id"] for r in wandb}) == 1


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [("tensorboard", TENSORBOARD, "ambient-worth[tb]"), ("wandb", "wandb", "ambient-worth[wandb]")],
)
def test_an_absent_package_is_said_in_one_sentence_before_anything_is_written(
    name: str, module: str, words: str, tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    result = train(tiny_config, tmp_path / "run", "--log", name)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_and_one_that_cannot_start_are_refused(
    tmp_path: Path, tiny_config: Path, wandb: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(tiny_config, tmp_path / "run", "--log", "paper")
    assert result.exit_code == 2
    assert "tensorboard, wandb" in result.stderr

    def offline(**settings: Any) -> None:
        raise ConnectionError("no route\nto host")

    sys.modules["wandb"].init = offline
    result = train(tiny_config, tmp_path / "run", "--log", "wandb")
    assert result.exit_code == 2
    assert "could not start (no route)" in result.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_training_without_log_imports_no_logger() -> None:
    code = "import sys, ambient_train.tasks.train; print([m for m in ('wandb', 'tensorboard') if m in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
