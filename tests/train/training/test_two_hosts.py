"""Two hosts, each with its own network: they find each other by their routes, lose each other, and go on.

`make hosts` runs these: they need root and iproute2, and are skipped with the reason where network namespaces cannot be
made. A host is a network namespace with processes of its own; both have the same name, which resolves to nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_run
import torch
from hosts import ROOT, Host, two_hosts, wait_until, why_not

pytestmark = [pytest.mark.namespaces, pytest.mark.multiproc, pytest.mark.timeout(900)]
MEMBER = str(ROOT / "tests" / "train" / "host_member.py")
PORT = 29500


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    if reason := why_not():
        pytest.skip(reason)
    with two_hosts(tmp_path) as both:
        yield both


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    tiny_run.run(path)
    return path


def assert_close_run(path: Path, reference: Path) -> None:
    """Every tensor to 1e-5, and a line of metrics for each step, none twice."""
    left, right = tiny_run.final(path), tiny_run.final(reference)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert [line[0] for line in tiny_run.metrics(path)] == [line[0] for line in tiny_run.metrics(reference)]


def ended(process: subprocess.Popen[bytes], host: Host) -> None:
    assert process.wait(400) == 0, host.talk.read_text()


def said(host: Host, sentence: str) -> None:
    wait_until(lambda: sentence in host.talk.read_text(), f"{host.device} to say {sentence!r}")


@pytest.mark.parametrize("keeper", [0, 1])
def test_two_hosts_train_to_the_result_of_one_process(hosts: tuple[Host, Host], tmp_path: Path, keeper: int) -> None:
    """Whichever keeps the rendezvous, its rank is the first: there the run directory is written."""
    (tmp_path / "tiny.toml").write_text(tiny_run.SETTINGS)
    command = ["-m", "cli", "train", "--config", str(tmp_path / "tiny.toml"), "--device", "cpu", "--nodes", "2"]
    command += ["--rendezvous", f"{hosts[keeper].address}:{PORT}"]
    runs = [tmp_path / host.device / "run" for host in hosts]
    processes = [host.start(*command, "--outdir", str(run)) for host, run in zip(hosts, runs, strict=True)]
    for process, host in zip(processes, hosts, strict=True):
        ended(process, host)
    assert not runs[1 - keeper].exists()
    assert tiny_run.command(tmp_path / "alone" / "run", "--device", "cpu")[0] == 0
    assert_close_run(runs[keeper], tmp_path / "alone" / "run")


@pytest.mark.parametrize("mortal", [0, 1])
def test_the_run_continues_when_a_host_that_died_is_back(
    hosts: tuple[Host, Host], alone: Path, tmp_path: Path, mortal: int
) -> None:
    """mortal: 0 keeps the rendezvous and the run directory, 1 does not."""
    run, pause, address = tmp_path / "run", tmp_path / "pause", f"{hosts[0].address}:{PORT}"
    dead, survivor = hosts[mortal], hosts[1 - mortal]
    command = (MEMBER, str(run), address, "--restarts", "1")
    survives = survivor.start(*command)
    dies = dead.start(*command, "--pause", str(pause))
    wait_until(pause.exists, "the middle of the training")
    dead.die()
    assert dies.wait(60) != 0
    pause.unlink()
    said(survivor, f"{address} no longer answers" if mortal == 0 else f"1 of 2 machines (twin at {survivor.address})")
    back = dead.start(*command)
    ended(back, dead)
    ended(survives, survivor)
    assert_close_run(run, alone)


def test_a_cut_cable_is_noticed_and_the_run_continues_when_it_is_mended(
    hosts: tuple[Host, Host], alone: Path, tmp_path: Path
) -> None:
    """No process dies and no connection is reset: only silence tells."""
    run, pause, address = tmp_path / "run", tmp_path / "pause", f"{hosts[0].address}:{PORT}"
    command = (MEMBER, str(run), address, "--restarts", "1")
    processes = [hosts[0].start(*command), hosts[1].start(*command, "--pause", str(pause))]
    wait_until(pause.exists, "the middle of the training")
    hosts[1].cable("down")
    pause.unlink()
    said(hosts[0], f"twin at {hosts[1].address} has not been heard of for 6 s")
    said(hosts[1], f"{address} no longer answers")
    hosts[1].cable("up")
    for process, host in zip(processes, hosts, strict=True):
        ended(process, host)
    assert_close_run(run, alone)


def test_a_host_that_nobody_joins_says_so_and_ends_with_a_sentence(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(tiny_run.SETTINGS)
    command = ["-m", "cli", "train", "--config", str(tmp_path / "tiny.toml"), "--device", "cpu", "--nodes", "2"]
    command += ["--outdir", str(tmp_path / "run"), "--rendezvous-timeout", "8s", "--rendezvous"]
    kept = hosts[0].start(*command, f"{hosts[0].address}:{PORT}")
    sought = hosts[1].start(*command, f"{hosts[0].address}:{PORT + 1}")
    assert (kept.wait(120), sought.wait(120)) == (1, 1)
    here, there = (host.talk.read_text() for host in hosts)
    came = f"1 of 2 machines (twin at {hosts[0].address}) came to {hosts[0].address}:{PORT}"
    assert f"{came}, which is this machine: waiting for the others, for at most 8 s" in here
    assert f"ambient: {came} within 8 s: start the same command on every machine" in here
    assert f"waiting for {hosts[0].address}:{PORT + 1} to answer, for at most 8 s" in there
    assert f"ambient: {hosts[0].address}:{PORT + 1} did not answer for 8 s" in there
    assert "Traceback" not in here + there
    assert not (tmp_path / "run").exists()
