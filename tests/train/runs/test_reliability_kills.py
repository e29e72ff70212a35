"""The same command after a kill, a signal, the time limit or a NaN ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from tiny_run import command, send

from ambient_theory.shared.errors import StoppedError, UsageError
from ambient_theory.shared.options import parse_time
from ambient_train.runs.run import RunDirectory
from ambient_train.training import checkpoints
from ambient_train.training import loop as training
from ambient_train.training.loop import BatchDivergedError, first_sample


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ambient train` that was never disturbed."""
    path = tmp_path_factory.mktemp("reference") / "run"
    assert command(path)[0] == 0
    return path


def kill_at_write(number: int) -> Callable[[], None]:
    """kill -9 this process before its `number`-th opening or renaming of a file of the run, wherever that is."""

    def install() -> None:
        calls = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal calls
            if event in ("open", "os.rename", "os.mkdir") and "run" in str(arguments[0]):
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return install


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
def test_killed_at_random_points_the_same_command_ends_with_bit_equal_state_and_metrics(
    reference: Path, tmp_path: Path, seed: int
) -> None:
    """Twice between steps, twice at a write of some file, then undisturbed."""
    generator = np.random.default_rng(seed)
    path = tmp_path / "run"
    statuses = [command(path, listener=send(signal.SIGKILL, "training", int(generator.integers(16, 200))))[0]]
    statuses += [command(path, before=kill_at_write(int(generator.integers(5, 60))))[0] for _ in range(2)]
    statuses += [command(path, listener=send(signal.SIGKILL, "training", int(generator.integers(200, 320))))[0]]
    assert statuses.count(-signal.SIGKILL) >= 2
    assert command(path)[0] == 0
    tiny_run.assert_same_run(path, reference)


@pytest.mark.parametrize(
    ("number", "phase", "done", "code"),
    [
        (signal.SIGTERM, "training", 112, 143),
        (signal.SIGINT, "training", 16, 130),
        (signal.SIGUSR2, "training", 304, 75),
        (signal.SIGTERM, "sampling", 0, 143),
        (signal.SIGUSR2, "scoring", 0, 75),
    ],
)
def test_a_signal_in_any_phase_saves_leaves_with_its_code_and_the_same_command_continues(
    reference: Path, tmp_path: Path, number: int, phase: str, done: int, code: int
) -> None:
    path = tmp_path / "run"
    status, talk = command(path, listener=send(number, phase, done))
    assert status == code
    assert f"stopped by {signal.Signals(number).name}" in talk
    assert "the same command continues" in talk
    assert "Traceback" not in talk
    newest, complaints = checkpoints.newest_valid(path / "checkpoints")
    assert newest is not None
    assert newest.nimg == (done if phase == "training" else 320)
    assert complaints == []
    assert RunDirectory(path).result() is None
    assert command(path)[0] == 0
    tiny_run.assert_same_run(path, reference)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR2, 75)])
def test_a_signal_while_data_are_loaded_leaves_with_its_code(tmp_path: Path, number: int, code: int) -> None:
    def before() -> None:
        import ambient_train.runs.resolve as module

        def load(*arguments: object, **keywords: object) -> None:
            os.kill(os.getpid(), number)
            raise AssertionError("not reached")

        module.load_images = load  # type: ignore[assignment]

    status, talk = command(tmp_path / "run", before=before)
    assert status == code
    assert talk == f"ambient: stopped by {signal.Signals(number).name}; the same command continues\n"


def test_a_second_signal_leaves_at_once_and_loses_only_what_was_not_saved(reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    status, _ = command(path, listener=send(signal.SIGTERM, "training", 128, times=2))
    assert status == 143
    assert checkpoints.available(path / "checkpoints") == []  # the first one would have come at 800 images or the end
    assert command(path)[0] == 0
    tiny_run.assert_same_run(path, reference)


def test_the_time_limit_saves_leaves_with_75_and_the_same_command_continues(reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    for done in (16, 32):
        status, talk = command(path, "--max-time", "0.001s")
        assert status == 75
        assert f"the time limit is reached: saved at {done} images" in talk
    assert command(path, "--max-time", "3h30m")[0] == 0
    tiny_run.assert_same_run(path, reference)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("3h30m", 12_600), ("2d", 172_800), ("1.5", 1.5), ("1m2s", 62)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text, "--max-time") == seconds


@pytest.mark.parametrize("text", ["", " ", "0", "0s", "-5", "3x", "1h-2m", "nan", "30m3h", "s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-time"):
        parse_time(text, "--max-time")


def test_a_longer_duration_continues_to_the_weights_of_one_long_run(reference: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert command(path, "--duration", "112")[0] == 0
    assert command(path)[0] == 0
    left, right = tiny_run.final(path), tiny_run.final(reference)
    assert all(torch.equal(left[name], right[name]) for name in right)
    assert command(path)[1].startswith("already done")


def poison(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool]) -> None:
    """Make the loss of the batch that starts at each `bad` global sample a NaN."""
    original = training.batch_loss

    def spoiled(config: Any, network: Any, batch: training.Batch, *others: Any) -> Any:
        loss, measured = original(config, network, batch, *others)
        factor = torch.where(batch.sample % 16 == 3, torch.nan, 1.0) if bad(int(batch.sample[0])) else 1.0
        return loss * factor, measured

    monkeypatch.setattr(training, "batch_loss", spoiled)


def test_a_nan_stops_before_the_update_names_the_image_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda first: first == 176)
    path = tmp_path / "run"
    with pytest.raises(
        BatchDivergedError, match=r"samples 176-191, sigma .*not finite: sample 179 \(image \d+, sigma"
    ) as e:
        tiny_run.run(path)
    assert e.value.exit_code == 4
    newest, complaints = checkpoints.newest_valid(path / "checkpoints")
    assert newest is not None
    assert (newest.nimg, complaints) == (160, [])
    assert all(torch.isfinite(t).all() for t in newest.groups["network"].values())


def test_rollback_passes_over_the_batch_and_stays_exact_after_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda first: first in (176, 192, 288))
    options = replace(tiny_run.OPTIONS, on_nan="rollback")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tiny_run.run(whole, options)
    assert RunDirectory(whole).skipped() == (176, 192, 288)
    assert [line[0] for line in tiny_run.metrics(whole)] == list(range(16, 321, 16))
    assert checkpoints.newest_valid(whole / "checkpoints")[0].meta["skipped"] == [176, 192, 288]  # type: ignore[union-attr]
    for done in (176, 240):
        pid = os.fork()
        if pid == 0:
            tiny_run.run(killed, options, listener=send(signal.SIGKILL, "training", done))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    (killed / "skipped.json").write_text("{")  # damaged: the checkpoint and the batches themselves know as well
    tiny_run.run(killed, options)
    tiny_run.assert_same_run(killed, whole)


def test_rollbacks_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, lambda first: first >= 64)
    with pytest.raises(BatchDivergedError):
        tiny_run.run(tmp_path / "run", replace(tiny_run.OPTIONS, on_nan="rollback", max_rollbacks=3))
    assert RunDirectory(tmp_path / "run").skipped() == (64, 80, 96)


def test_skipped_batches_are_passed_over_each_once() -> None:
    starts = [first_sample(nimg, (32, 64, 48), 16) for nimg in range(0, 112, 16)]
    assert starts == [0, 16, 80, 96, 112, 128, 144]
    assert [first_sample(nimg, (), 16) for nimg in (0, 16)] == [0, 16]


def test_first_checkpoint_and_nan_before_it_roll_back_to_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda first: first == 16)
    tiny_run.run(tmp_path / "run", replace(tiny_run.OPTIONS, on_nan="rollback"), duration=64)
    assert RunDirectory(tmp_path / "run").skipped() == (16,)


def test_an_unknown_answer_to_a_nan_is_refused(tmp_path: Path) -> None:
    status, talk = command(tmp_path / "run", "--on-nan", "ignore")
    assert (status, "on-nan 'ignore' is not one of stop, rollback" in talk) == (2, True)


def test_stopped_runs_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(StoppedError, match=r"saved at 48 images in .*; the same command continues"):
        tiny_run.run(path, listener=send(signal.SIGINT, "training", 48))
    log = (path / "log.txt").read_text()
    assert "stopped by SIGINT at 48" in log
    shutil.rmtree(path / "checkpoints" / "000000000048")
    said: list[str] = []
    tiny_run.run(path, talk=said.append)
    assert said == ["continuing at 32 images"]
