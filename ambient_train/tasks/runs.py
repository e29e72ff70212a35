"""What `ambient runs` says: the runs of a folder, how far each is, its score, and the command that continues it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.plain_text import printable_line
from ambient_theory.shared.records import Record
from ambient_train.runs.state import RunState, find_runs, state_of
from ambient_train.tasks.show import short

SCHEMA = "ambient.runs/1"


@dataclass(frozen=True)
class RunList:
    """The runs of a folder."""

    folder: Path
    runs: tuple[RunState, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "folder": str(self.folder), "runs": [_entry(r) for r in self.runs]}

    def show(self) -> None:
        if not self.runs:
            print(printable_line(f"no runs below {self.folder}: `ambient train` makes one"))
            return
        _show_table(self)
        print(", ".join(f"{n} {state}" for state, n in Counter(r.state for r in self.runs).items()))
        for run in self.runs:
            if run.message:
                print(printable_line(f"damaged: {run.message}"))
        for run in self.runs:
            if run.command:
                words = "score" if run.state == "trained" else "continue"
                print(printable_line(f"{words} {_name(run, self.folder)}:"))
                print(printable_line(f"  {run.command}"))


def list_runs(folder: Path) -> RunList:
    """The runs of a folder. Raises DataError where there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: give the one that holds your runs as --runs FOLDER")
    return RunList(folder, tuple(state_of(path) for path in find_runs(folder)))


def _show_table(listed: RunList) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    for name in ("state", "images", "score", "nats"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("images", "nats") else "left")
    for run in listed.runs:
        most = run.trained_nimg if run.duration_nimg is None else min(run.trained_nimg, run.duration_nimg)
        images = short(most) + ("" if run.duration_nimg is None else f"/{short(run.duration_nimg)}")
        nats = run.nats
        table.add_row(
            escape(printable_line(_name(run, listed.folder))),
            run.state,
            images,
            escape(printable_line(_score(run.headline))),
            "" if nats is None else f"{nats.value:.4g}",
        )
    Console(highlight=False).print(table)


def _name(run: RunState, folder: Path) -> str:
    """The path below the folder that was asked for; the folder's own where it is the run."""
    return str(run.path) if run.path == folder else str(run.path.relative_to(folder))


def _score(record: Record | None) -> str:
    return "" if record is None else f"{record.metric} {record.value:.4g} {record.extractor.split(':')[0]}"


def _entry(run: RunState) -> dict[str, Any]:
    """A run for programs. nats: of the held-out denoising error, with the standard error."""
    score, nats = run.headline, run.nats
    return {
        "path": str(run.path),
        "state": run.state,
        "trained_nimg": run.trained_nimg,
        "duration_nimg": run.duration_nimg,
        "scored_nimg": None if not run.records else run.records[0].duration_nimg,
        "score": None
        if score is None
        else {
            "metric": score.metric,
            "extractor": score.extractor,
            "reference": score.reference,
            "value": score.value,
            "interval95": score.extra.get("interval95"),
        },
        "nats": None if nats is None else {"value": nats.value, "stderr": nats.stderr},
        "command": run.command,
        "message": run.message,
    }
