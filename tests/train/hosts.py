"""Two hosts on this machine: network namespaces joined by a veth pair, both with one name that resolves to nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "twin"


def why_not() -> str:
    """Why this machine cannot have such hosts; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root"
    absent = [program for program in ("ip", "unshare", "hostname") if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} (iproute2, util-linux, hostname) not installed"
    probe = f"ambient-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return ""


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = 240.0) -> None:
    """Return once the condition holds. Raises TimeoutError, which says what was awaited."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Host:
    """A network namespace, its address, and where what runs in it writes its stderr."""

    space: str
    device: str
    address: str
    folder: Path

    @property
    def talk(self) -> Path:
        return self.folder / f"{self.device}.txt"

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A Python process here: `python COMMAND`."""
        inside = ["sh", "-c", f'hostname {NAME} && exec "$@"', "sh", sys.executable, *command]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "train")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        with self.talk.open("ab") as talk:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.space, "unshare", "--uts", *inside],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=talk,
            )

    def die(self) -> None:
        """Every process of this host is killed, and none is left."""
        for pid in ip("netns", "pids", self.space).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: not ip("netns", "pids", self.space).strip(), f"processes of {self.space} to be gone")

    def cable(self, state: str) -> None:
        """The cable of this host, `up` or `down`."""
        ip("-n", self.space, "link", "set", self.device, state)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """The second one's address comes first in alphabetical order: 10.77.0.9 and 10.77.0.10."""
    tag = f"ambient-{os.getpid()}"
    hosts = [Host(f"{tag}-{k}", f"veth-{k}", f"10.77.0.{n}", folder) for k, n in (("a", 9), ("b", 10))]
    try:
        for host in hosts:
            ip("netns", "add", host.space)
            ip("-n", host.space, "link", "set", "lo", "up")
        a, b = hosts
        ip("link", "add", a.device, "netns", a.space, "type", "veth", "peer", "name", b.device, "netns", b.space)
        for host in hosts:
            ip("-n", host.space, "address", "add", f"{host.address}/24", "dev", host.device)
            host.cable("up")
        yield a, b
    finally:
        for host in hosts:
            with contextlib.suppress(subprocess.CalledProcessError):
                host.die()
                ip("netns", "delete", host.space)
