"""Kill every command that takes a while at random, damage its files, fill its disk, and count what survives.

Each command is run once undisturbed. Then, again and again, it is started in a forked process that has imported
everything and is harmed, with the same arguments and an output folder of its own:

moment     SIGKILL of all its processes after a random share of the time that the undisturbed command took
call       SIGKILL before a random call that opens, renames, makes or removes a file of its output
disk       no file may grow beyond a random size (RLIMIT_FSIZE)
damage     a random file of the output is cut, flipped or deleted between two starts (`Command.noticed`)

A trial survives if the same command, started once more undisturbed, leaves with 0 and every file as the undisturbed
one, but for what tells the time (`content`), and nothing beside. After damage it may refuse in one sentence instead;
then it must survive without the folder. Anything else is a loss; a traceback at any start is unexpected.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tarfile
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from files import save
from PIL import Image

from ambient_theory.shared.signals import EXIT_CODES
from cli import app

TRAIN = """
data = "digits"
max_images = 96
precision = "fp32"
duration_nimg = 96
batch = 16
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, sampler = { steps = 2 } }
"""
MIXED = "n_clean = 30\nn_noisy = 66\nsigma = 0.3\n"
GRID = f"""
name = "tiny"
seeds = [0]
[base]
{TRAIN.replace("evaluation = {", "evaluation = { best = false, ")}
[[cell]]
name = "clean"
n_clean = 60
[[cell]]
name = "mixed"
{MIXED}
"""
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")
CLOCK = ("wall_s", "img_per_s", "versions", "created", "command", "sha256", "spent_s", "seconds", "started")
REFUSALS = (2, 3, 5)
"""Exit codes of a refusal; 5: a sweep some of whose cells cannot go on."""
MOST_HARM = 6
"""How often a trial is harmed before it is left alone."""
PATIENCE = 20
"""A start that takes so many times as long as the undisturbed one hangs."""
HUNG = 98
LOST = ("lost", "unexpected", "hung")


@dataclass(frozen=True)
class Command:
    """arguments: for an output of this path. output: its name. noticed: the files in it whose damage the next start
    promises to notice."""

    name: str
    arguments: Callable[[Path], Sequence[object]]
    output: str = "out"
    noticed: Callable[[Path], list[Path]] | None = None


def of_unfinished(out: Path) -> list[Path]:
    """The files of runs without a result: a finished run is believed by the seal of its result, and damage of its other
    files is noticed when they are read."""
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and p.name not in ("lock", "log.txt", "metrics.jsonl")]
    return [p for p in files if not any((above / "result.json").exists() for above in (p.parent, *p.parents))]


def of_ledger(out: Path) -> list[Path]:
    """The cells of a simulation, and what is written anew from them."""
    return [p for p in sorted(out.rglob("*")) if p.is_file() and p.name != "lock"]


def prepare_inputs(folder: Path) -> list[Command]:
    """What the commands work on, made once in `folder`: a trained network, pictures, a grid."""
    folder.mkdir(parents=True, exist_ok=True)
    config, grid, run, pictures = (folder / name for name in ("train.toml", "grid.toml", "run", "pictures"))
    config.write_text(TRAIN + MIXED)
    grid.write_text(GRID)
    _must("train", "--config", config, "--outdir", run, "--quiet")
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for k in range(60):
        Image.fromarray(generator.integers(0, 256, (12, 12), dtype=np.uint8)).save(pictures / f"{k:02d}.png")
    return [
        Command("train", lambda out: ("train", "--config", config, "--outdir", out), noticed=of_unfinished),
        Command(
            "distil",
            lambda out: ("train", "--distill", run, "--duration", 64, "--lr", 1e-3, "--outdir", out),
            noticed=of_unfinished,
        ),
        Command("generate", lambda out: ("generate", run, "--seeds", "0-59", "--batch", 16, "--outdir", out)),
        Command("generate npz", lambda out: ("generate", run, "--seeds", "0-59", "--format", "npz", "--outdir", out)),
        Command("evaluate", lambda out: ("evaluate", run, "--outdir", out)),
        Command(
            "restore",
            lambda out: ("restore", run, "--samples", 3, "--batch", 16, "--outdir", out),
            noticed=of_unfinished,
        ),
        Command("prepare zip", lambda out: ("data", "prepare", pictures, out), output="out.zip"),
        Command("prepare npz", lambda out: ("data", "prepare", pictures, out), output="out.npz"),
        Command(
            "simulate",
            lambda out: ("simulate-gmm", "--n", "1e2,1e3", "--reps", 4, "--workers", 1, "--outdir", out),
            noticed=of_ledger,
        ),
        Command(
            "sweep",
            lambda out: ("sweep", "run", grid, "--runs", out / "runs", "--outdir", out / "table"),
            noticed=of_unfinished,
        ),
    ]


def _must(*arguments: object) -> None:
    status, said = start(arguments)
    if status:
        raise AssertionError(f"{arguments}: status {status}: {said}")


# ------------------------------------------------------------------------------------------------------------ one start


def start(
    arguments: Sequence[object],
    *,
    before: Callable[[], object] = int,
    kill_after: float | None = None,
    give_up_after: float = 600.0,
) -> tuple[int, str]:
    """Exit status and what was said by `ambient ARGUMENTS` in a forked process group of its own.

    before: called there first. kill_after: seconds after which the whole group is killed. A group that still runs after
    `give_up_after` seconds is killed too; the status is then HUNG.
    """
    heard, says = os.pipe()  # not a file: what is said must have room on a full disk
    os.set_blocking(heard, False)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.setsid()
            os.dup2(says, 1)
            os.dup2(says, 2)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            for number in EXIT_CODES:
                signal.signal(number, signal.SIG_DFL)
            torch.set_num_threads(1)
            before()
            app([str(a) for a in arguments])
            status = 0
        except SystemExit as leave:
            status = int(leave.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    os.close(says)
    began, killed, words = time.monotonic(), False, b""
    while True:
        found, raw = os.waitpid(pid, os.WNOHANG)
        with contextlib.suppress(BlockingIOError):
            while part := os.read(heard, 65536):
                words += part
        if found:
            break
        spent = time.monotonic() - began
        if not killed and spent > min(give_up_after, kill_after if kill_after is not None else give_up_after):
            _kill_group(pid)
            killed = True
        time.sleep(0.002)
    _kill_group(pid)  # what it started
    hung = killed and (kill_after is None or kill_after >= give_up_after)
    os.close(heard)
    return HUNG if hung else os.waitstatus_to_exitcode(raw), words.decode(errors="replace")


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _at_call(out: Path, number: int) -> None:
    """Die before the number-th call that touches what is at `out` or beside it under its name."""
    calls, stem = 0, str(out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event in EVENTS and (stem in str(arguments[0]) or f".{out.name}" in str(arguments[0])):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _small_disk(limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def damage(files: Sequence[Path], generator: np.random.Generator) -> str:
    """Cut, flip or delete one of the files; what was done."""
    if not files:
        return "nothing"
    file = files[generator.integers(len(files))]
    way, data = ("cut", "flip", "delete")[generator.integers(3)], bytearray(file.read_bytes())
    if way == "delete" or not data:
        file.unlink()
        return "delete"
    if way == "cut":
        os.truncate(file, int(generator.integers(len(data))))
    else:
        data[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        file.write_bytes(data)
    return way


# ----------------------------------------------------------------------------------------------------------- comparing


def content(out: Path) -> dict[str, str]:
    """A digest of every file of an output, by its name in it, without what tells the time: JSON of any kind by its
    values, archives by their members."""
    if out.is_file():
        return {".": _digest(out)}
    return {
        str(p.relative_to(out)): _digest(p)
        for p in sorted(out.rglob("*"))
        if p.is_file() and p.name not in ("lock", "log.txt")
    }


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = [data] if path.suffix == ".json" else data.splitlines()
        held = json.dumps([_timeless(json.loads(line)) for line in lines if line.strip()], sort_keys=True)
        data = held.replace(str(path.parent), "").encode()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = b"".join(info.filename.encode() + b"\0" + archive.read(info) for info in archive.infolist())
    elif path.suffix == ".tar" and tarfile.is_tarfile(path):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            data = b"".join(m.name.encode() + (archive.extractfile(m) or io.BytesIO()).read() for m in archive)
    return hashlib.sha256(data).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in CLOCK}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------------------ campaign


@dataclass(frozen=True)
class Reference:
    """What the undisturbed command makes, the seconds that it takes, and the calls for files that it makes."""

    content: Mapping[str, str]
    seconds: float
    calls: int


def reference(command: Command, folder: Path) -> Reference:
    """Run the command twice undisturbed: the first may import, and both must make the same."""
    found: list[dict[str, str]] = []
    for name in ("first", "second"):
        out = _fresh(folder / name, command)
        began = time.monotonic()
        status, said = start(command.arguments(out), before=functools.partial(_count_calls, out))
        seconds = time.monotonic() - began
        if status:
            raise AssertionError(f"{command.name}: status {status}: {said}")
        found.append(content(out))
        calls = int((folder / name / "calls").read_text())
    if found[0] != found[1]:
        different = {name for name in found[0] | found[1] if found[0].get(name) != found[1].get(name)}
        raise AssertionError(f"{command.name} makes another output each time: {sorted(different)}")
    return Reference(found[0], seconds, calls)


def _count_calls(out: Path) -> None:
    calls, stem = 0, str(out)
    note = os.open(out.parent / "calls", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(note, b"0")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event in EVENTS and (stem in str(arguments[0]) or f".{out.name}" in str(arguments[0])):
            calls += 1
            os.pwrite(note, str(calls).encode(), 0)

    sys.addaudithook(hook)


def _fresh(folder: Path, command: Command) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder / command.output


def trial(
    command: Command, known: Reference, folder: Path, generator: np.random.Generator
) -> tuple[collections.Counter[str], list[str]]:
    """Harm the command a few times, then let it finish: counts of what was done and of what became of it, and what was
    said where it may not."""
    counts: collections.Counter[str] = collections.Counter()
    notes: list[str] = []

    def judge(status: int, said: str) -> None:
        if _unexpected(status, said):
            counts["unexpected"] += 1
            notes.append(f"status {status}: {said[-600:]}")

    out, harmed = _fresh(folder, command), False
    patience = PATIENCE * known.seconds + 30
    again = functools.partial(start, command.arguments(out), give_up_after=patience)
    for _ in range(int(generator.integers(1, MOST_HARM + 1))):
        weights = (0.4, 0.35, 0.1, 0.15) if command.noticed else (0.5, 0.4, 0.1, 0.0)
        kind = str(generator.choice(["moment", "call", "disk", "damage"], p=weights))
        after = float(generator.uniform(0, 1.1)) * known.seconds
        number, limit = int(generator.integers(1, known.calls + 2)), int(10 ** generator.uniform(1.5, 5.5))
        if kind == "damage":
            way = damage(command.noticed(out), generator) if command.noticed else "nothing"
            harmed = harmed or way != "nothing"
            counts["damages"] += way != "nothing"
            continue
        if kind == "moment":
            status, said = again(kill_after=after)
        elif kind == "call":
            status, said = again(before=functools.partial(_at_call, out, number))
        else:
            status, said = again(before=functools.partial(_small_disk, limit))
            counts["full disks"] += 1
        counts["kills"] += status == -signal.SIGKILL
        counts["hung"] += status == HUNG
        judge(status, said)
    status, said = again()
    if status in REFUSALS and harmed and "Traceback" not in said:
        counts["refused with a sentence after damage"] += 1
        out = _fresh(folder, command)
        status, said = start(command.arguments(out), give_up_after=patience)
    judge(status, said)
    same = status == 0 and content(out) == known.content and {p.name for p in folder.iterdir()} == {out.name}
    counts["survived, the same output" if same else "lost"] += 1
    if not same:
        now = content(out) if out.exists() else {}
        different = sorted(name for name in now | dict(known.content) if now.get(name) != known.content.get(name))
        beside = sorted({p.name for p in folder.iterdir()} - {out.name})
        notes.append(f"status {status}, other files: {different}, beside: {beside}, said: {said[-600:]}")
    return +counts, notes


def _unexpected(status: int, said: str) -> bool:
    """Whether a start ended as none may: with a traceback, by a signal that was not sent, with an unknown code."""
    allowed = (0, -signal.SIGKILL, HUNG, *REFUSALS)
    return "Traceback" in said or status not in allowed


def torture(
    kills: int, seed: int, out: Path | None, folder: Path, say: Callable[[str], object], only: str | None = None
) -> dict[str, Any]:
    """The result of so many kills, continued from `out` and saved to it after each trial.

    Trial k of a seed harms the command k modulo their number, from a generator of (seed, k). only: this command alone.
    """
    commands = [c for c in prepare_inputs(folder / "inputs") if only in (None, c.name)]
    result: dict[str, Any] = {"seed": seed, "kills": 0, "damages": 0, "trials": 0, "counts": {}, "faults": []}
    if out is not None and out.is_file() and (before := json.loads(out.read_text()))["seed"] == seed:
        result = before
    known: dict[str, Reference] = {}
    while result["kills"] < kills:
        k = result["trials"]
        command = commands[k % len(commands)]
        if command.name not in known:
            known[command.name] = reference(command, folder / "reference")
        where = folder / f"trial-{k}"
        counts, notes = trial(command, known[command.name], where, np.random.default_rng([seed, k]))
        total = collections.Counter(result["counts"].get(command.name, {}))
        result["counts"][command.name] = dict(sorted((total + counts).items()))
        result["trials"] = k + 1
        result["kills"] += counts["kills"]
        result["damages"] += counts["damages"]
        if any(counts[name] for name in LOST):
            result["faults"].append({"trial": k, "command": command.name, "notes": notes})
            say(f"trial {k} of seed {seed}, {command.name}: {'; '.join(notes)} ({where} stays)")
        else:
            shutil.rmtree(where)
        if out is not None:
            save(out, result)
    return result
