"""Sweeps on SLURM: jobs give the records of one process, are queued again on SIGUSR2, and ask for what was asked."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke import ambient

from ambient_theory.shared.errors import PartialError, StoppedError, UsageError
from ambient_train.runs import run as running
from ambient_train.settings.run_options import SlurmOptions
from ambient_train.sweep import pool as sweep
from ambient_train.sweep import slurm
from ambient_train.sweep.grid import read_grid
from ambient_train.sweep.pool import CellOutcome
from ambient_train.sweep.slurm import Submission, SweepWorker, submit_sweep, wait_for_grid

GRID = """
name = "tiny"

[base]
data = "digits"
max_images = 96
duration_nimg = 64
batch = 16
precision = "fp32"
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, best = false, sampler = { steps = 2 } }

[[cell]]
name = "clean"

[[cell]]
name = "mixed"
n_clean = 10
n_noisy = 86
sigma = [0.2, 0.6]
"""


def values(path: Path) -> list[dict[str, Any]]:
    """Records without what depends on the clock."""
    return [{k: v for k, v in json.loads(line).items() if k != "wall_s"} for line in path.read_text().splitlines()]


@pytest.fixture
def submitit() -> Any:
    return pytest.importorskip("submitit")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of one process."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "grid.toml").write_text(GRID)
    result = ambient("sweep", "run", folder / "grid.toml", "--runs", folder / "runs", "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    records = values(folder / "runs" / "sweep-tiny" / "records.jsonl")
    assert len(records) == 3 * (2 + 17)  # cells, references
    return records


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def disturbed_once(marker: Path, *signals: int) -> type[SweepWorker]:
    """A worker that sends itself signals after 48 images of a mixed cell, in the one job that makes `marker` first.

    A local class, so that it travels to the job by value.
    """

    class Disturbed(SweepWorker):
        def __call__(self) -> list[CellOutcome]:
            original = running.execute

            def execute(job: Any, *arguments: Any, **keywords: Any) -> Any:
                def listen(progress: Any) -> None:
                    if job.config.n_clean == 10 and progress.phase == "training" and progress.done >= 48:
                        try:
                            marker.touch(exist_ok=False)
                        except FileExistsError:
                            return
                        for number in signals:
                            os.kill(os.getpid(), number)

                return original(job, *arguments, **keywords, listener=listen)

            running.execute = execute
            try:
                return super().__call__()
            finally:
                running.execute = original

    return Disturbed


def test_waiting_for_jobs_gives_the_records_and_the_table_of_one_process(
    submitit: Any, tmp_path: Path, grid: Path, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "slurm_executor", lambda logs, *_, **__: submitit.DebugExecutor(folder=logs))
    runs = tmp_path / "runs"
    result = ambient("sweep", "run", grid, "--runs", runs, "--slurm", "--wait", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["cells"] == {"done": 3}
    assert [row["cell"] for row in answer["summary"][:3]] == ["clean", "mixed sigma 0.2", "mixed sigma 0.6"]
    assert values(runs / "sweep-tiny" / "records.jsonl") == expected


@pytest.mark.slow
@pytest.mark.multiproc
def test_two_jobs_of_which_one_is_queued_again_give_the_records_of_one_process(
    submitit: Any, tmp_path: Path, grid: Path, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, runs = tmp_path / "marker", tmp_path / "runs"
    monkeypatch.setattr(slurm, "SweepWorker", disturbed_once(marker, signal.SIGUSR2))
    executor = submitit.LocalExecutor(folder=tmp_path / "logs")
    executor.update_parameters(timeout_min=5)
    submission = submit_sweep(executor, read_grid(grid), runs, jobs=2, device="cpu")
    assert len(submission.jobs) == 2
    result = wait_for_grid(submission, runs, quiet=True)
    result.check()
    assert values(runs / "sweep-tiny" / "records.jsonl") == expected
    said = "".join(job.paths.stderr.read_text() for job in submission.jobs)
    assert "stopped by SIGUSR2: saved at 48 images" in said
    logged = "".join(job.paths.stdout.read_text() for job in submission.jobs)
    assert logged.count("Calling checkpoint method") == logged.count("Requeued job") == 1
    for directory in runs.glob("digits-*"):  # no step was done twice
        steps = [json.loads(line)["nimg"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps))


@pytest.fixture
def cluster(submitit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs of SLURM's names: sbatch and scontrol write down what they get, srun runs its command."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    here = shlex.quote(str(folder))
    programs = {
        "sbatch": f'echo "$@" >> {here}/sbatch.txt; cp "$1" {here}/job.sh; echo "Submitted batch job 123"',
        "sinfo": "echo 'gpu:a100:8(S:0-1)'",
        "scontrol": f'echo "$@" >> {here}/scontrol.txt',
        "srun": 'while [[ "$1" == -* ]]; do case "$1" in --output|--error) shift;; esac; shift; done; exec "$@"',
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def flags(script: str) -> dict[str, str]:
    """The #SBATCH lines of a submission file."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_partition_gpus_time_and_signal_reach_sbatch(cluster: Path, tmp_path: Path, grid: Path) -> None:
    runs = tmp_path / "runs"
    options = ("--slurm-partition", "long", "--slurm-gpus", 2, "--slurm-time", 90, "--slurm-jobs", 3, "--threads", 4)
    result = ambient("sweep", "run", grid, "--runs", runs, "--slurm", *options, "--json")
    assert result.exit_code == 0, result.output
    logs = runs / "sweep-tiny" / "slurm"
    assert json.loads(result.stdout) == {"grid": "tiny", "jobs": ["123_0", "123_1", "123_2"], "logs": str(logs)}
    script = (cluster / "job.sh").read_text()
    asked = flags(script)
    wanted = {"partition": "long", "gpus-per-node": "2", "time": "90", "cpus-per-task": "4", "array": "0-2%3"}
    assert {key: asked[key] for key in wanted} == wanted
    assert asked["signal"] == "USR2@120"
    assert asked["job-name"] == "ambient-tiny"
    assert asked["open-mode"] == "append"
    assert "requeue" in asked
    assert "--cpus-per-task=4" in next(line for line in script.splitlines() if line.startswith("srun"))
    assert len((cluster / "sbatch.txt").read_text().splitlines()) == 1


def test_defaults_ask_for_one_gpu_and_as_many_jobs_as_workers_but_at_most_one_a_cell(
    cluster: Path, tmp_path: Path, grid: Path
) -> None:
    result = ambient("sweep", "run", grid, "--runs", tmp_path / "runs", "--slurm", "--workers", 50)
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[:3] == ["123_0", "123_1", "123_2"]
    asked = flags((cluster / "job.sh").read_text())
    assert (asked["gpus-per-node"], asked["time"], "partition" in asked) == ("1", "240", False)
    assert ambient("sweep", "run", grid, "--runs", tmp_path / "runs", "--slurm", "--slurm-gpus", 0).exit_code == 0
    assert "gpus-per-node" not in flags((cluster / "job.sh").read_text())


@pytest.mark.slow
@pytest.mark.multiproc
def test_the_submitted_script_saves_on_the_signal_asks_for_its_requeue_and_continues(
    cluster: Path,
    tmp_path: Path,
    grid: Path,
    expected: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm, "SweepWorker", disturbed_once(tmp_path / "marker", signal.SIGTERM, signal.SIGUSR2))
    runs = tmp_path / "runs"
    options = SlurmOptions(gpus=0, minutes=60)
    submission = slurm.submit_grid(grid, runs, options, device="cpu")
    assert [job.job_id for job in submission.jobs] == ["123"]

    def start() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLURM_JOB_ID": "123", "SLURM_PROCID": "0"}
        script = ["bash", str(cluster / "job.sh")]
        return subprocess.run(script, env=environment, capture_output=True, text=True, check=False)

    first = start()
    assert first.returncode != 0
    assert "stopped by SIGUSR2: saved at 48 images" in first.stderr
    assert "Bypassing signal SIGTERM" in first.stderr
    assert (cluster / "scontrol.txt").read_text() == "requeue 123\n"
    assert not submission.jobs[0].paths.result_pickle.exists()
    second = start()
    assert second.returncode == 0, second.stderr
    result = wait_for_grid(submission, runs, quiet=True)
    result.check()
    assert values(runs / "sweep-tiny" / "records.jsonl") == expected
    assert (cluster / "scontrol.txt").read_text() == "requeue 123\n"


def test_a_stop_that_nobody_queues_again_is_an_error(submitit: Any, tmp_path: Path, grid: Path) -> None:
    heard: list[int] = []
    worker = disturbed_once(tmp_path / "marker", signal.SIGUSR2)(read_grid(grid), tmp_path / "runs", "cpu")
    before = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    try:
        with pytest.raises(StoppedError, match="saved at 48 images") as caught:
            worker()
        assert caught.value.exit_code == 75
        signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
        (tmp_path / "marker").unlink()
        with pytest.raises(StoppedError):
            worker()
        assert heard == [signal.SIGUSR2]  # where somebody listens, the stop is passed on, once
    finally:
        signal.signal(signal.SIGUSR2, before)
    again = worker.checkpoint()
    assert again.function is worker
    assert [o.state for o in again.result()] == ["done"] * 3


class Job:
    """What a submission needs of a submitit job: its number, its error or its result, where its log is."""

    def __init__(self, job_id: str, answer: Exception | list[CellOutcome], folder: Path):
        self.job_id, self.answer = job_id, answer
        self.paths = type("Paths", (), {"stderr": folder / f"{job_id}.err"})

    def exception(self) -> Exception | None:
        return self.answer if isinstance(self.answer, Exception) else None

    def result(self) -> list[CellOutcome]:
        assert not isinstance(self.answer, Exception)
        return self.answer


def test_of_two_jobs_the_better_outcome_of_a_cell_counts_and_a_lost_job_is_named(
    tmp_path: Path, grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parsed = read_grid(grid)
    one = [CellOutcome(parsed.cells[2], "failed"), CellOutcome(parsed.cells[0], "done")]
    two = [CellOutcome(parsed.cells[2], "done"), CellOutcome(parsed.cells[0], "failed")]
    lost = RuntimeError("Job 9 was cancelled\nError stream: none")
    jobs = [Job("7", one, tmp_path), Job("8", two, tmp_path), Job("9", lost, tmp_path)]
    outcomes = Submission(parsed, jobs, tmp_path).outcomes()
    assert [(o.cell, o.state) for o in outcomes] == [(parsed.cells[0], "done"), (parsed.cells[2], "done")]
    assert f"job 9 did not end well: Job 9 was cancelled; its log: {tmp_path / '9.err'}" in capsys.readouterr().err
    with pytest.raises(StoppedError, match="2 of 3 cells done"):
        sweep.check(outcomes, parsed)
    with pytest.raises(PartialError, match="none of 1 jobs came to its end"):
        Submission(parsed, jobs[2:], tmp_path).outcomes(quiet=True)


def test_jobs_that_squeue_forgot_have_ended_and_states_on_the_way_have_not() -> None:
    listing = "7_0 RUNNING\n7_1 COMPLETED\n8 CONFIGURING\n9 NODE_FAIL\n99 FAILED\n"
    assert slurm.read_queue(listing, ["7_0", "7_1", "8", "9", "10"]) == {
        "7_0": "RUNNING",
        "7_1": "COMPLETED",
        "8": "RUNNING",
        "9": "NODE_FAIL",
        "10": "ENDED",
    }
    assert slurm.read_queue("", ["1"]) == {"1": "ENDED"}


def test_a_squeue_that_does_not_answer_is_told_once_and_ends_no_job(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = slurm._queue_watcher()
    watcher.register_job("5")
    for answer, done in (("echo unreachable >&2; exit 1", False),) * 2 + (("echo 5 RUNNING", False), ("true", True)):
        (cluster / "squeue").write_text(f"#!/bin/bash\n{answer}\n")
        (cluster / "squeue").chmod(0o755)
        watcher.update()
        assert watcher.is_done("5", mode="cache") is done
    assert capsys.readouterr().err.count("squeue does not answer (unreachable)") == 1


def test_gpus_are_refused_where_sinfo_knows_none_and_left_to_sbatch_where_it_fails(
    cluster: Path, tmp_path: Path, grid: Path
) -> None:
    submit = ("sweep", "run", grid, "--runs", tmp_path / "runs", "--slurm")
    (cluster / "sinfo").write_text("#!/bin/bash\necho '(null)'\n")
    result = ambient(*submit, "--slurm-gpus", 2)
    assert result.exit_code == 2
    assert "--slurm-gpus 2, but sinfo knows no GPU in this cluster: add --slurm-gpus 0" in result.stderr
    assert not (cluster / "sbatch.txt").exists()
    assert ambient(*submit, "--slurm-gpus", 0).exit_code == 0
    (cluster / "sinfo").write_text("#!/bin/bash\nexit 1\n")
    assert ambient(*submit, "--slurm-gpus", 2).exit_code == 0


def test_a_refusal_of_sbatch_is_told_in_a_sentence(cluster: Path, tmp_path: Path, grid: Path) -> None:
    (cluster / "sbatch").write_text("#!/bin/bash\necho 'invalid partition specified: nowhere' >&2; exit 1\n")
    result = ambient("sweep", "run", grid, "--runs", tmp_path / "r", "--slurm", "--slurm-partition", "nowhere")
    assert result.exit_code == 2
    assert "sbatch refused the jobs: " in result.stderr
    assert "invalid partition specified: nowhere" in result.stderr


def test_without_slurm_or_its_signal_the_sweep_is_refused(
    submitit: Any, cluster: Path, tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitit.JobEnvironment, "USR_SIG", "USR1")
    with pytest.raises(UsageError, match="SUBMITIT_PREEMPT_SIGNAL=USR1"):
        slurm.submit_grid(grid, tmp_path / "r", SlurmOptions())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch and srun on the PATH"):
        slurm.submit_grid(grid, tmp_path / "r", SlurmOptions())


def test_without_submitit_one_sentence_names_the_extra(
    tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    result = ambient("sweep", "run", grid, "--runs", tmp_path / "runs", "--slurm")
    assert result.exit_code == 2
    assert "pip install 'ambient-worth[slurm]'" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--slurm", "--slurm-jobs", 0),
        ("--slurm", "--slurm-gpus", -1),
        ("--slurm", "--slurm-time", 4),
        ("--slurm-partition", "long"),
        ("--wait",),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, grid: Path, options: tuple[object, ...]) -> None:
    result = ambient("sweep", "run", grid, "--runs", tmp_path / "runs", *options)
    assert result.exit_code == 2
    assert "--slurm" in result.stderr
