"""Progress for people: a Rich bar with img/s, loss and ETA on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from ambient_theory.shared.console import talk
from ambient_train.runs.run import Listener, Progress

_NAMES = {"train": "training", "sample": "sampling", "score": "scoring"}


@contextlib.contextmanager
def progress_listener(quiet: bool = False, every_s: float = 10.0) -> Iterator[Listener | None]:
    """A listener for `execute`, on stderr; None when quiet."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as listener:
            yield listener
    else:
        yield _plain(every_s)


@contextlib.contextmanager
def _bar() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>12}"),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[tuple[str, int], int] = {}

        def listen(p: Progress) -> None:
            if p.phase == "score":
                return
            key = (p.phase, p.total)
            if key not in tasks:
                tasks[key] = bar.add_task(_NAMES[p.phase], total=p.total, rate="", loss="")
            loss = "" if p.loss is None else f"loss {p.loss:.4f}"
            bar.update(tasks[key], completed=min(p.done, p.total), rate=f"{p.rate:,.0f} img/s", loss=loss)  # type: ignore[arg-type]

        yield listen


def _plain(every_s: float) -> Listener:
    last = {"time": time.monotonic()}

    def listen(p: Progress) -> None:
        now = time.monotonic()
        if p.done < p.total and now - last["time"] < every_s:
            return
        last["time"] = now
        if p.phase == "score":
            talk("scoring")
            return
        loss = "" if p.loss is None else f"  loss {p.loss:.4f}"
        left = (p.total - p.done) / max(p.rate, 1e-9)
        talk(f"{_NAMES[p.phase]} {p.done:,}/{p.total:,} images  {p.rate:,.0f} img/s{loss}  {left:,.0f} s left")

    return listen
