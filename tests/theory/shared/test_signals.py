"""A worker does not outlive a parent that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ambient_theory.shared.signals import ORPHAN_LEAVES_S, ORPHAN_LOOKS_S

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""
CHILD = """
import signal, time
{listens}
{watches}
time.sleep(60)
time.sleep(60)
"""
WATCHES = "from ambient_theory.shared.signals import leave_with_parent; leave_with_parent(); leave_with_parent()"


def alive(pid: int) -> bool:
    """Whether the process runs (one that is dead and not yet collected does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def orphan(listens: str, watches: str) -> int:
    """A process whose parent was killed."""
    child = CHILD.format(listens=listens, watches=watches)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, child], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.5)
    assert alive(pid)
    parent.kill()
    parent.wait()
    return pid


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at /proc")
@pytest.mark.parametrize("listens", ["", "signal.signal(signal.SIGTERM, lambda *_: None)"])
def test_a_worker_ends_with_its_parent_even_if_it_would_rather_save_for_ever(listens: str) -> None:
    pid = orphan(listens, WATCHES)
    until = time.monotonic() + 3 * (ORPHAN_LOOKS_S + ORPHAN_LEAVES_S)  # busy machine: three times the promise
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(pid)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks at /proc")
def test_without_the_watch_it_goes_on() -> None:
    pid = orphan("", "")
    time.sleep(ORPHAN_LOOKS_S + 0.5)
    assert alive(pid)  # control
    os.kill(pid, signal.SIGKILL)
