"""A SLURM cluster on this machine, from Debian's slurm-wlm and munge: one node of two cores on loopback.

    python tests/train/slurm_cluster.py start FOLDER     (then: export SLURM_CONF=FOLDER/slurm.conf)
    python tests/train/slurm_cluster.py stop FOLDER

Root only. Everything that it writes is in FOLDER; the daemons' ports are free ones; an installed cluster is not
touched. There is no accounting, no GPU, and limits are acted upon within seconds.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel")
NODE = "tiny"

CONF = """
ClusterName=ambient
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=1
JobRequeue=1
KillWait=5
MinJobAge=300
SlurmdTimeout=10
InactiveLimit=0
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 \
ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


def why_not() -> str:
    """Why this machine cannot have the cluster; empty if it can."""
    if os.geteuid() != 0:
        return "a SLURM cluster is started by root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(absent)} not installed (Debian: slurm-wlm, munge)" if absent else ""


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = 60.0) -> None:
    """Return once the condition holds. Raises TimeoutError, which says what was awaited."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.05)


def start(folder: Path) -> None:
    """Start munge, the controller and the node's daemon, and wait until the node is idle."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munge wants its socket where others can look
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    conf = CONF.format(
        folder=folder, host=socket.gethostname().partition(".")[0], node=NODE, controller=_port(), daemon=_port()
    )
    (folder / "slurm.conf").write_text(conf)
    munge = ["--socket", "munge.socket", "--key-file", "munge.key", "--pid-file", "munge.pid"]
    munge += ["--log-file", "munge.log", "--seed-file", "munge.seed"]
    places = [f"{folder}/{word}" if word.startswith("munge.") else word for word in munge]
    _run(["munged", "--force", *places], folder)
    _run(["slurmctld", "-f", f"{folder}/slurm.conf"], folder)
    start_node(folder)


def start_node(folder: Path) -> None:
    """Start the node's daemon, and wait until the node takes jobs."""
    _run(["slurmd", "-f", f"{folder}/slurm.conf", "-N", NODE], folder)
    wait_until(lambda: ask(folder, "sinfo", "-h", "-o", "%T") in ("idle", "mixed", "allocated"), "the node to be up")


def stop(folder: Path) -> None:
    """End the daemons and what is left of their jobs."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        ask(folder, "scancel", "--signal=KILL", "--user=root")
    for name in ("slurmd", "slurmctld", "munge"):
        end(folder, name)


def end(folder: Path, daemon: str) -> None:
    """End one daemon by its pid file, and wait until it is gone."""
    pid_file = folder / f"{daemon}.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or _zombie(pid), f"{daemon} to end")


def ask(folder: Path, *command: str) -> str:
    """What a command of SLURM says of this cluster."""
    return _run(list(command), folder).strip()


def environment(folder: Path) -> dict[str, str]:
    """For a process that submits to this cluster."""
    return {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def _zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](Path(sys.argv[2]).absolute())
