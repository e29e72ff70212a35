"""Progress for people, on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ambient_theory.shared.console import talk
from ambient_theory.shared.plain_text import duration_text

EVERY_S = 10.0
"""Seconds between plain lines."""


@dataclass(frozen=True)
class Progress:
    """How far something is. phase: in one word. done, total: in `unit`. rate: units per second, None where the reporter
    is to measure it. loss: of a training."""

    phase: str
    done: int
    total: int
    rate: float | None = None
    loss: float | None = None
    unit: str = "images"


Listener = Callable[[Progress], None]

_SHORT = {"images": "img/s"}


def ignore(progress: Progress) -> None:
    """The listener of those who want no progress."""


@contextlib.contextmanager
def progress_listener(quiet: bool = False, every_s: float = EVERY_S) -> Iterator[Listener]:
    """A listener that shows what it hears; one that shows nothing when quiet."""
    if quiet:
        yield ignore
    elif sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield _lines(every_s)


@contextlib.contextmanager
def stage_listener(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """The same as a function (stage, done, total) of images, whose rate is measured here."""
    with progress_listener(quiet) as listener:
        yield lambda stage, done, total: listener(Progress(stage, done, total))


class _Rates:
    """Units per second of each phase since it was first heard of; what was done before does not count."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, int], tuple[int, float]] = {}

    def __call__(self, p: Progress) -> float:
        done, begun = self._first.setdefault((p.phase, p.total), (p.done, time.monotonic()))
        return p.rate if p.rate is not None else (p.done - done) / max(time.monotonic() - begun, 1e-9)


@contextlib.contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>12}"),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    rates = _Rates()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[tuple[str, int], TaskID] = {}

        def listen(p: Progress) -> None:
            key = (p.phase, p.total)
            if key not in tasks:
                tasks[key] = bar.add_task(p.phase, total=p.total, completed=min(p.done, p.total), rate="", loss="")
            rate = rates(p)
            shown = f"{rate:,.0f} {_SHORT.get(p.unit, p.unit + '/s')}" if rate > 0 else ""
            loss = "" if p.loss is None else f"loss {p.loss:.4f}"
            bar.update(tasks[key], completed=min(p.done, p.total), rate=shown, loss=loss)

        yield listen


def _lines(every_s: float) -> Listener:
    last = {"time": time.monotonic()}
    rates = _Rates()

    def listen(p: Progress) -> None:
        rate, now = rates(p), time.monotonic()
        if p.done < p.total and now - last["time"] < every_s:
            return
        last["time"] = now
        line = f"{p.phase} {min(p.done, p.total):,}/{p.total:,} {p.unit}"
        if rate > 0:
            line += f"  {rate:,.0f} {_SHORT.get(p.unit, p.unit + '/s')}"
        if p.loss is not None:
            line += f"  loss {p.loss:.4f}"
        if rate > 0 and p.done < p.total:
            line += f"  {duration_text((p.total - p.done) / rate)} left"
        talk(line)

    return listen
