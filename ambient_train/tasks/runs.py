"""What `ambient runs` says: the runs of a folder, how far each is, its score, and the command that continues it."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.plain_text import printable, printable_line
from ambient_theory.shared.records import Record
from ambient_train.runs.state import RunState, find_runs, state_of
from ambient_train.tasks.show import short

SCHEMA = "ambient.runs/1"
HEAD, GAP = ("run", "state", "images", "score", "nats"), "  "


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
    """A line a run; where one would not fit the terminal, each name has a line of its own. No name is broken, so that
    it can be copied."""
    rows = [HEAD, *(_cells(run, listed.folder) for run in listed.runs)]
    widths = [max(len(row[c]) for row in rows) for c in range(len(HEAD))]
    apart = sum(widths) + len(GAP) * (len(HEAD) - 1) > shutil.get_terminal_size().columns
    for name, *cells in rows:
        aligned = GAP.join(
            cell.rjust(width) if column in ("images", "nats") else cell.ljust(width)
            for column, cell, width in zip(HEAD[1:], cells, widths[1:], strict=True)
        )
        print(f"{name}\n{GAP}{aligned.rstrip()}" if apart else f"{name.ljust(widths[0])}{GAP}{aligned}".rstrip())


def _cells(run: RunState, folder: Path) -> tuple[str, ...]:
    """What the columns of `HEAD` say of a run."""
    most = run.trained_nimg if run.duration_nimg is None else min(run.trained_nimg, run.duration_nimg)
    images = short(most) + ("" if run.duration_nimg is None else f"/{short(run.duration_nimg)}")
    nats = "" if run.nats is None else f"{run.nats.value:.4g}"
    return tuple(map(_plain, (_name(run, folder), run.state, images, _score(run.headline), nats)))


def _plain(text: str) -> str:
    return printable(printable_line(text), sys.stdout.encoding)


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
