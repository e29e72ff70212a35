"""Sweeps on a real SLURM, started here: whatever happens to the jobs, the records are those of one process.

`make slurm` runs these: they need root, slurm-wlm and munge, and are skipped with the reason where those are missing.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
import tiny_run
import torch
from invoke import ambient
from slurm_cluster import NODE, ask, wait_until
from test_slurm import GRID, values

from ambient_train.runs import run as running
from ambient_train.settings.run_options import SlurmOptions
from ambient_train.sweep import slurm
from ambient_train.sweep.pool import CellOutcome
from ambient_train.sweep.slurm import Submission, SweepWorker, submit_grid, wait_for_grid

pytestmark = [pytest.mark.slurm, pytest.mark.multiproc, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cluster's."""
    pytest.importorskip("submitit")
    if reason := slurm_cluster.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    try:
        slurm_cluster.start(folder)
        yield folder
    finally:
        slurm_cluster.stop(folder)


@pytest.fixture
def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT}/tests/train")  # jobs have the environment of who submits
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of one process."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "grid.toml").write_text(GRID)
    result = ambient("sweep", "run", folder / "grid.toml", "--runs", folder / "runs", "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    return values(folder / "runs" / "sweep-tiny" / "records.jsonl")


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def held_once(marker: Path) -> type[SweepWorker]:
    """A worker that writes its number to `marker` after 48 images of a training, and then does nothing until SIGUSR2.

    Only the job that makes `marker` first does so. A local class, so that it travels to the job by value.
    """

    from submitit import JobEnvironment

    class Held(SweepWorker):
        def __call__(self) -> list[CellOutcome]:
            original = running.execute

            def execute(job: Any, *arguments: Any, **keywords: Any) -> Any:
                def listen(progress: Any) -> None:
                    if progress.phase != "training" or progress.done < 48:
                        return
                    ear, mouth = socket.socketpair()
                    mouth.setblocking(False)
                    signal.set_wakeup_fd(mouth.fileno())  # each signal that comes is a byte there
                    try:
                        with marker.open("x") as file:
                            file.write(JobEnvironment().job_id)
                    except FileExistsError:
                        return
                    while ear.recv(1) != bytes([signal.SIGUSR2]):
                        pass

                return original(job, *arguments, **keywords, listener=listen)

            running.execute = execute
            return super().__call__()

    return Held


def submitted(monkeypatch: pytest.MonkeyPatch, grid: Path, jobs: int = 1) -> tuple[Submission, Path, Path]:
    """Jobs of which one is held in the middle of a training; the folder of runs; the file with that one's number."""
    marker, runs = grid.parent / "held", grid.parent / "runs"
    monkeypatch.setattr(slurm, "SweepWorker", held_once(marker))
    submission = submit_grid(grid, runs, SlurmOptions(gpus=0, minutes=60, jobs=jobs), device="cpu")
    wait_until(lambda: marker.exists() and marker.read_text(), "a job to be in the middle of a training", 240)
    return submission, runs, marker


def told(submission: Submission) -> str:
    return "".join(p.read_text() for p in sorted(submission.logs.glob("*_log.*")))


def assert_records(submission: Submission, runs: Path, expected: list[dict[str, Any]]) -> None:
    """All cells done, the records of one process, and no step trained twice into the metrics."""
    wait_for_grid(submission, runs).check()
    assert values(runs / "sweep-tiny" / "records.jsonl") == expected, told(submission)
    for directory in runs.glob("digits-*"):
        steps = [json.loads(line)["nimg"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps))


def restarts(folder: Path, job: str) -> int:
    fields = dict(word.partition("=")[::2] for word in ask(folder, "scontrol", "show", "job", job).split())
    return int(fields["Restarts"])


def test_a_sweep_ends_with_the_records_of_one_process_and_says_nothing_of_accounting(
    cluster: Path, tmp_path: Path, grid: Path, expected: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    options = ("--slurm", "--slurm-gpus", 0, "--slurm-jobs", 2, "--wait", "--device", "cpu", "--json")
    result = ambient("sweep", "run", grid, "--runs", runs, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["cells"] == {"done": 3}
    assert values(runs / "sweep-tiny" / "records.jsonl") == expected
    assert "sacct" not in result.stderr + capfd.readouterr().err


def test_gpus_that_the_cluster_has_not_are_refused_with_what_to_add(cluster: Path, tmp_path: Path, grid: Path) -> None:
    def queued() -> set[str]:
        return set(ask(cluster, "squeue", "--noheader", "--format=%F").split())  # arrays by the number of the whole

    before = queued()  # jobs of another test may still be ending
    for where, place in (((), "cluster"), (("--slurm-partition", "main"), "partition main")):
        result = ambient("sweep", "run", grid, "--runs", tmp_path / "runs", "--slurm", *where)
        assert result.exit_code == 2
        assert f"sinfo knows no GPU in this {place}: add --slurm-gpus 0" in result.stderr
    assert queued() <= before


def test_before_its_time_is_up_a_job_saves_is_queued_again_and_continues(
    cluster: Path, grid: Path, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is shortened while it runs: SLURM itself sends SIGUSR2, two minutes before the end."""
    submission, runs, _ = submitted(monkeypatch, grid)
    job = submission.jobs[0].job_id
    ask(cluster, "scontrol", "update", f"JobId={job}", "TimeLimit=3")
    assert_records(submission, runs, expected)
    assert "stopped by SIGUSR2: saved at 48 images" in told(submission)
    assert restarts(cluster, job) == 1


@pytest.mark.parametrize("loss", ["requeued by hand", "node set down"])
def test_a_job_that_is_queued_again_from_outside_continues(
    cluster: Path, grid: Path, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    submission, runs, _ = submitted(monkeypatch, grid)
    job = submission.jobs[0].job_id
    if loss == "node set down":
        ask(cluster, "scontrol", "update", f"NodeName={NODE}", "State=DOWN", "Reason=test")
        wait_until(lambda: restarts(cluster, job) == 1, "the job to be queued again")
        ask(cluster, "scontrol", "update", f"NodeName={NODE}", "State=RESUME")
    else:
        ask(cluster, "scontrol", "requeue", job)
    assert_records(submission, runs, expected)
    assert restarts(cluster, job) == 1


def test_of_two_jobs_the_other_one_takes_over_the_cells_of_a_cancelled_one(
    cluster: Path,
    grid: Path,
    expected: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submission, runs, marker = submitted(monkeypatch, grid, jobs=2)
    held = marker.read_text()
    assert held in [job.job_id for job in submission.jobs]
    ask(cluster, "scancel", held)
    assert_records(submission, runs, expected)
    assert f"job {held} did not end well" in capsys.readouterr().err


def test_a_cancelled_job_ends_the_wait_with_a_sentence(
    cluster: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission, runs, _ = submitted(monkeypatch, grid)
    ask(cluster, "scancel", submission.jobs[0].job_id)
    with pytest.raises(slurm.PartialError, match="none of 1 jobs came to its end"):
        wait_for_grid(submission, runs, quiet=True)


def test_two_tasks_of_srun_train_to_the_result_of_one_process(cluster: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_run.SETTINGS)
    run, alone = tmp_path / "run", tmp_path / "alone" / "run"
    train = (
        sys.executable,
        "-m",
        "cli",
        "train",
        "--config",
        str(tmp_path / "tiny.toml"),
        "--device",
        "cpu",
        "--quiet",
    )
    ask(cluster, "srun", "--ntasks=2", *train, "--outdir", str(run))
    assert tiny_run.command(alone, "--device", "cpu")[0] == 0
    left, right = tiny_run.final(run), tiny_run.final(alone)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
