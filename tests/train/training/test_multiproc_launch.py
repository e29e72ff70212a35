"""`--nproc` starts, watches, restarts and stops its processes; several machines meet at one address."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
import torch
from groups import free_port
from torch.distributed.elastic.rendezvous import dynamic_rendezvous
from typer.testing import CliRunner

from ambient_theory.shared.errors import DivergedError, StoppedError, UsageError
from ambient_train.settings.run_options import LaunchOptions
from ambient_train.training.launch import RankDiedError, _forwarding, _Start, launch
from ambient_train.training.world import choose_device, first_host, join_group, place_in_group
from cli import app

pytestmark = pytest.mark.multiproc


def train(path: Path, harm: str = "") -> list[float] | None:
    """A rank of a tiny training. harm: done once, by rank 1, in the middle."""
    torch.set_num_threads(1)
    with join_group("cpu") as world:

        def listen(progress: Any) -> None:
            if world.rank != 1 or progress.phase != "training" or progress.done != 160:
                return
            if harm == "kill" and not (path.parent / "killed").exists():
                (path.parent / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if harm == "kill always":
                os.kill(os.getpid(), signal.SIGKILL)
            if harm == "signal to the launcher":
                os.kill(int(os.environ["LAUNCHER"]), signal.SIGTERM)

        if harm == "error":
            raise DivergedError("a sentence")
        scores = tiny_run.run(path, world=world, listener=listen)
        return [r.value for at in scores.values() for r in at] if world.leader else None


def with_launcher(path: Path, harm: str, pid: int) -> list[float] | None:
    os.environ["LAUNCHER"] = str(pid)
    return train(path, harm)


@pytest.fixture(autouse=True, scope="module")
def no_event_records() -> Iterator[None]:
    """torch names the caller in each rendezvous event by searching all modules of a process: slow in a test run."""
    with pytest.MonkeyPatch.context() as patch:
        for owner in (dynamic_rendezvous.DynamicRendezvousHandler, dynamic_rendezvous._DistributedRendezvousOpExecutor):
            patch.setattr(owner, "_record", lambda *arguments, **keywords: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    values = launch(train, {"path": path}, LaunchOptions(nproc=2), device="cpu")
    assert values == tiny_run.score(path)
    return path


def test_a_rank_that_is_killed_is_restarted_and_the_run_ends_bit_equal(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    launch(train, {"path": path, "harm": "kill"}, LaunchOptions(nproc=2, max_restarts=1), device="cpu")
    assert (tmp_path / "killed").exists()
    tiny_run.assert_same_run(path, whole)


def test_without_restarts_a_killed_rank_ends_the_command_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RankDiedError, match=r"process \d of the group .* the same command continues") as caught:
        launch(train, {"path": tmp_path / "run", "harm": "kill always"}, LaunchOptions(nproc=2), device="cpu")
    assert caught.value.exit_code == 1


def test_a_signal_to_the_launcher_reaches_all_ranks_which_save(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    arguments = {"path": path, "harm": "signal to the launcher", "pid": os.getpid()}
    with pytest.raises(StoppedError, match=r"stopped by SIGTERM: saved at \d+ images") as caught:
        launch(with_launcher, arguments, LaunchOptions(nproc=2, max_restarts=2), device="cpu")
    assert caught.value.exit_code == 143
    launch(train, {"path": path}, LaunchOptions(nproc=2), device="cpu")
    tiny_run.assert_same_run(path, whole)


def test_an_error_of_the_user_is_raised_once_and_restarts_nothing(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="a sentence") as caught:
        launch(train, {"path": tmp_path / "run", "harm": "error"}, LaunchOptions(nproc=2, max_restarts=3), device="cpu")
    assert caught.value.exit_code == 4


def test_two_machines_meet_at_a_rendezvous(whole: Path, tmp_path: Path) -> None:
    """Two agents on loopback, one process each: what two machines do."""
    path, address, values = tmp_path / "run", f"127.0.0.1:{free_port()}", {}

    def machine(number: int) -> None:
        values[number] = launch(
            train, {"path": path}, LaunchOptions(nproc=1, nodes=2, rendezvous=address), device="cpu"
        )

    threads = [threading.Thread(target=machine, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(v is None for v in values.values()) == [False, True]
    tiny_run.assert_same_run(path, whole)


@pytest.mark.parametrize(
    "wrong", [{"nproc": 0}, {"nproc": 2, "max_restarts": -1}, {"nproc": 1, "nodes": 2}, {"nproc": 1, "nodes": 0}]
)
def test_impossible_groups_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        LaunchOptions(**wrong)


def test_the_place_in_a_group_comes_from_torchrun_or_a_job_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert place_in_group() is None
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert place_in_group() is None  # a batch script: one process, whatever the size of the job
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert place_in_group() == (5, 8, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert place_in_group() == (2, 4, 0)
    with pytest.raises(UsageError, match="each process takes its own"), join_group("cuda:1"):
        pass


@pytest.mark.parametrize(
    ("nodes", "host"), [("gpu[03-07,11],x", "gpu03"), ("n1,n2", "n1"), ("a-b7", "a-b7"), ("r[1-2]x,r3x", "r1x")]
)
def test_the_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="is unknown"):
        choose_device("abacus")


def test_a_batch_that_three_processes_cannot_share_is_refused_once_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_run.SETTINGS)
    arguments = ["train", "--config", str(tmp_path / "tiny.toml"), "--outdir", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, [*arguments, "--nproc", "3"])
    assert result.exit_code == 2
    assert result.stderr.count("batch 16 does not divide into 3 processes") == 1
    assert not (tmp_path / "run").exists()


def children(pid: int) -> list[int]:
    """The processes that a process has started, as Linux knows them."""
    with contextlib.suppress(OSError):
        return [int(n) for task in Path(f"/proc/{pid}/task").iterdir() for n in (task / "children").read_text().split()]
    return []


def ranks_under_way(pid: int) -> int:
    """How many processes the fork server of a command has started; -1 while there is no fork server."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            if b"multiprocessing.forkserver" in Path(f"/proc/{child}/cmdline").read_bytes():
                return len(children(child))
    return -1


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("ranks", "number", "code", "all_of_them"),
    [
        (1, signal.SIGTERM, 143, False),
        pytest.param(0, signal.SIGTERM, 143, False, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGINT, 130, True, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGINT, 130, True, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGTERM, 143, False, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGUSR2, 75, True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_the_ranks_are_being_started_is_one_sentence(
    tmp_path: Path, ranks: int, number: signal.Signals, code: int, all_of_them: bool
) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_run.SETTINGS)
    train = ["train", "--config", str(tmp_path / "tiny.toml"), "--outdir", str(tmp_path / "run"), "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "cli", *train, "--nproc", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as command:  # fmt: skip
        while command.poll() is None and ranks_under_way(command.pid) < ranks:
            pass
        (os.killpg if all_of_them else os.kill)(command.pid, number)
        said = command.communicate(timeout=120)[1]
    assert command.returncode == code, said
    assert said.count("stopped by") == 1
    assert "Traceback" not in said


@pytest.mark.parametrize("under_way", [True, False])
def test_a_signal_leaves_only_where_no_rank_is_being_started(under_way: bool) -> None:
    """The moment of a few milliseconds in which a rank has no number yet, held still."""
    start = _Start(threading.Event(), int, {}, 2)  # type: ignore[arg-type]
    start._newest = SimpleNamespace() if under_way else SimpleNamespace(pid=1)
    stopped = contextlib.nullcontext() if under_way else pytest.raises(StoppedError, match="stopped by SIGTERM")
    with stopped, _forwarding(start) as heard:
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    assert start.asked.is_set()
