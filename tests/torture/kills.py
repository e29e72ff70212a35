"""Kill trainings at random, damage their files, fill their disk, and count what survives.

A small training is run once undisturbed. Then, again and again, the same training is started in a forked process and
harmed, until the asked number of kills is reached:

kill       SIGKILL after a random step, or before a random call that opens, renames or makes a file or folder
damage     a random file (of a checkpoint, the metrics, ...) is cut, flipped or deleted between two starts
full disk  RLIMIT_FSIZE lets no file grow beyond a random size

A training survives if the same command, started once more undisturbed, ends with bit-equal weights, averages,
optimiser, V(sigma), metrics and scores. It is refused if damage left no checkpoint that holds and the command said so:
that is the promise too. Anything else is a loss.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny_run

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.runs.run import RunDirectory

REFUSED = 3
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


def in_child(action: Callable[[], object]) -> int:
    """Exit status of a forked process: 0, REFUSED, minus the signal that killed it, or 99 for anything else."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            action()
            status = 0
        except (DataError, UsageError):
            status = REFUSED
        except BaseException as error:
            print(f"unexpected: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_after_step(path: Path, steps: int) -> None:
    """Die after so many steps of this sitting."""
    seen = 0

    def listen(progress: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    tiny_run.run(path, listener=listen)


def kill_at_call(path: Path, number: int) -> None:
    """Die before the number-th call that touches a file of the run."""
    calls = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event in EVENTS and str(path) in str(arguments[0]):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    tiny_run.run(path)


def full_disk(path: Path, limit: int) -> None:
    """Run while no file may grow beyond `limit` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    tiny_run.run(path)


def damage(path: Path, generator: np.random.Generator) -> str:
    """Cut, flip or delete one file of a checkpoint, of the result or of the metrics; what was done."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in ("lock", "log.txt", "manifest.json"))
    files += sorted(path.glob("checkpoints/*/manifest.json"))
    if not files:
        return "nothing"
    file = files[generator.integers(len(files))]
    if file.name == "metrics.jsonl":  # the one file without a seal: only a cut last line, as a crash leaves it
        os.truncate(file, max(file.stat().st_size - 7, 0))
        return "cut metrics"
    way = ("cut", "flip", "delete")[generator.integers(3)]
    data = bytearray(file.read_bytes())
    if way == "delete" or not data:
        file.unlink()
    elif way == "cut":
        os.truncate(file, int(generator.integers(len(data))))
    else:
        data[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        file.write_bytes(data)
    return way


def torture(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Harm trainings until so many were killed; counts of what was done and of what became of them."""
    generator = np.random.default_rng(seed)
    reference = folder / "reference"
    tiny_run.run(reference)
    counts: collections.Counter[str] = collections.Counter()
    done, trainings = 0, 0
    while done < kills:
        path = folder / f"run-{trainings}"
        trainings += 1
        harmed = False
        for _ in range(int(generator.integers(12, 25))):
            if RunDirectory(path).result() is not None:
                break  # finished: its result is believed by its seal, later damage is noticed when a file is read
            kind = generator.choice(["step", "call", "damage", "disk"], p=[0.4, 0.4, 0.1, 0.1])
            steps, call, limit = (int(generator.integers(1, top)) for top in (6, 60, 60_000))
            if kind == "step":
                status = in_child(functools.partial(kill_after_step, path, steps))
            elif kind == "call":
                status = in_child(functools.partial(kill_at_call, path, call))
            elif kind == "disk":
                status = in_child(functools.partial(full_disk, path, limit))
                counts["full disks"] += 1
            else:
                way = damage(path, generator)
                counts[f"damage: {way}"] += 1
                harmed = harmed or way not in ("nothing", "cut metrics")
                continue
            if status == -signal.SIGKILL:
                done += 1
                counts["kills after a step" if kind == "step" else "kills at a file call"] += 1
            elif status == 99:
                counts["unexpected errors"] += 1
        status = in_child(functools.partial(tiny_run.run, path))
        if status == REFUSED and harmed:
            counts["refused with a sentence after damage"] += 1
            shutil.rmtree(path / "checkpoints")
            status = in_child(functools.partial(tiny_run.run, path))
        same = False
        with contextlib.suppress(AssertionError, OSError):
            tiny_run.assert_same_run(path, reference)
            same = status == 0
        counts["survived, bit-equal" if same else "lost"] += 1
        if not same:
            print(f"lost: {path} (status {status})", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(path)
    return {"kills": done, "trainings": trainings, "seed": seed, "counts": dict(sorted(counts.items()))}
