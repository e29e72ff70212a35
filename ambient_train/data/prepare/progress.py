"""Progress of a command on stderr: a rich bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from ambient_theory.shared.console import talk

_PLAIN_EVERY_S = 10.0


@contextlib.contextmanager
def reporter(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A function (stage, done, total) that shows images done, images a second and the time left."""
    if quiet:
        yield lambda stage, done, total: None
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _plain()


def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, tuple[TaskID, int, float]] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                number = bar.add_task(stage, total=total, completed=done, rate="")
                tasks[stage] = (number, done, time.monotonic())
            number, first, start = tasks[stage]
            rate = (done - first) / max(time.monotonic() - start, 1e-9)
            bar.update(number, completed=done, rate=f"{rate:,.0f} img/s")

        yield show


def _plain() -> Callable[[str, int, int], None]:
    started: dict[str, tuple[int, float]] = {}
    last = [time.monotonic()]

    def show(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        first, start = started.setdefault(stage, (done, now))
        if done == first or now - last[0] < _PLAIN_EVERY_S:
            return
        last[0] = now
        rate = (done - first) / max(now - start, 1e-9)
        left = f", {(total - done) / rate:,.0f} s left" if rate > 0 else ""
        talk(f"{stage}: {done:,} of {total:,} images, {rate:,.0f} img/s{left}")

    return show
