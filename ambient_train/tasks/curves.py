"""Runs beside each other: training loss, held-out error on the way, held-out denoising error E(s) by level.

The loss and the error on the way come from metrics.jsonl, E(s) from the records of the newest scored point.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text
from ambient_theory.shared.palette import LEVELS, MARKERS
from ambient_theory.shared.plain_text import printable_line
from ambient_theory.shared.plotting import log_axis, new_figure, shared_legend, styled, to_bytes
from ambient_theory.shared.records import Record
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.state import RunState, state_of
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.files import CurveFiles
from ambient_train.tasks.show import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = "ambient.runs-compare/1"
NAMES = "ABCDEF"
_HELDOUT = {"heldout_denoise": "held-out error, nats an image", "heldout_proximal": "held-out proximal score"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Runs compared</title>
<style>body{{font:15px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}svg{{width:100%;height:auto}}
td,th{{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}}</style></head><body>
<h1>Runs compared</h1>
<table><tr><th></th><th>run</th><th>state</th><th>images</th><th>score</th><th>nats</th></tr>{rows}</table>
{figure}
<p>Training losses compare runs with the same loss alone. E(s): squared error per pixel of denoised held-out images at
diffusion level s, of the newest scored point; bars are standard errors.</p>
<ul>{sentences}</ul>
</body></html>
"""


@dataclass(frozen=True)
class Curves:
    """One run: its letter, state, config, lines of metrics, and E(s) of its last weights by ascending level."""

    letter: str
    run: RunState
    config: TrainConfig
    metrics: tuple[dict[str, Any], ...]

    @property
    def label(self) -> str:
        """As a figure has it: never read as mathematics."""
        return printable_line(f"{self.letter}: {self.run.path.name or self.run.path}").replace("$", r"\$")

    @property
    def levels(self) -> list[Record]:
        """E(s), one record a level, ascending."""
        found = [r for r in self.run.records if r.metric == "denoise" and r.checkpoint in (None, "last")]
        return sorted((r for r in found if r.level), key=lambda r: r.level or 0.0)

    def points(self, key: str) -> tuple[list[int], list[float]]:
        """(images, values) of a column of the metrics, where a line has it."""
        have = [line for line in self.metrics if isinstance(line.get(key), int | float)]
        return [line["nimg"] for line in have], [float(line[key]) for line in have]

    @property
    def heldout(self) -> str:
        """The column of what is measured on held-out images on the way, or empty."""
        return next((key for key in _HELDOUT if self.points(key)[0]), "")


@dataclass(frozen=True)
class Comparison:
    """differences: sentences on the settings in which a run differs from the first. notes: what is not drawn, or not
    to be compared. files: what was written."""

    curves: tuple[Curves, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "runs": [_entry(c) for c in self.curves],
            "differences": list(self.differences),
            "notes": list(self.notes),
            "files": [str(f) for f in self.files],
        }

    def show(self) -> None:
        for c in self.curves:
            print(printable_line(", ".join(_words(c))))
        for sentence in self.differences:
            print(printable_line(sentence))
        for file in self.files:
            print(printable_line(f"{file} written"))


def compare_runs(paths: Sequence[Path], files: CurveFiles) -> Comparison:
    """Read the runs, draw them, write the picture. Raises UsageError for names of files that are taken or no PNG or
    HTML, and for fewer than two runs; DataError where a path holds no run, or no run has anything to draw."""
    if not 2 <= len(paths) <= len(NAMES):
        raise UsageError(f"{len(paths)} run(s): give two to {len(NAMES)} run directories")
    _check_free(files)
    curves = tuple(_read(letter, path) for letter, path in zip(NAMES, paths, strict=False))
    if not any(c.metrics or c.levels for c in curves):
        raise DataError("none of these runs has metrics or scores yet: train them first")
    differences = [s for c in curves[1:] if (s := _difference(curves[0], c))]
    notes = _notes(curves)
    with styled():
        drawn = to_bytes(_draw(curves))
    written = [files.out]
    atomic_write_bytes(files.out, drawn["png"])
    if files.html is not None:
        written.append(files.html)
        atomic_write_text(files.html, _page(curves, drawn["svg"].decode(), [*differences, *notes]))
    return Comparison(curves, tuple(differences), tuple(notes), tuple(written))


def _check_free(files: CurveFiles) -> None:
    wanted: list[tuple[Path, tuple[str, ...], str]] = [(files.out, (".png",), "the picture is a PNG")]
    if files.html is not None:
        wanted.append((files.html, (".html", ".htm"), "the page is HTML"))
    for path, endings, what in wanted:
        if path.suffix.lower() not in endings:
            raise UsageError(f"{path}: {what}: give a name that ends in {endings[0]}")
        if path.exists() and not files.overwrite:
            raise UsageError(f"{path} exists: give another name, or --overwrite")
        if not path.resolve().parent.is_dir():
            raise DataError(f"{path.parent}: no such directory")


def _read(letter: str, path: Path) -> Curves:
    run = state_of(path)
    if run.state == "damaged":
        raise DataError(run.message)
    directory = RunDirectory(path)
    return Curves(letter, run, directory.config(), tuple(directory.read_metrics()))


def _difference(first: Curves, other: Curves) -> str:
    """The settings in which a run differs from the first; the data are named where their content does."""
    found = other.config.differences(first.config.to_dict())
    if first.run.duration_nimg != other.run.duration_nimg:
        found.append(f"duration: {first.run.duration_nimg} -> {other.run.duration_nimg}")
    return f"{first.letter} -> {other.letter}: {'; '.join(found)}" if found else ""


def _notes(curves: Sequence[Curves]) -> list[str]:
    out = []
    for c in curves:
        if not c.metrics:
            out.append(f"{c.letter} has no metrics that can be read: its loss is not drawn")
        if not c.levels:
            out.append(f"{c.letter} has no denoising error by level yet: it is measured when a run is scored")
    losses = {tuple(getattr(c.config, k) for k in ("weight", "draw", "buffer", "consistency")) for c in curves}
    if len(losses) > 1:
        out.append("the runs have different losses (weight, draw, buffer, consistency): their values do not compare")
    if len({c.levels[0].extra.get("images") for c in curves if c.levels}) > 1:
        out.append("the runs were measured on different held-out images: their errors by level do not compare")
    if len({c.heldout for c in curves if c.heldout}) > 1:
        out.append("the runs choose their best checkpoint by different numbers: only the first run's kind is drawn")
    return out


def _draw(curves: Sequence[Curves]) -> Figure:
    figure = new_figure(9.2, 6.6)
    axes: Any = figure.subplots(2, 2).reshape(-1)
    loss, heldout, levels, ratio = axes
    loss.set(title="training loss", xlabel="images", ylabel="mean loss of a tick")
    kind = next((c.heldout for c in curves if c.heldout), "heldout_denoise")
    heldout.set(title="held-out images, on the way", xlabel="images", ylabel=_HELDOUT[kind])
    levels.set(title="held-out denoising error", xlabel="diffusion level s", ylabel="E(s), squared error a pixel")
    ratio.set(title=f"the same, over that of {curves[0].letter}", xlabel="diffusion level s", ylabel="ratio")
    base = {r.level: r.value for r in curves[0].levels}
    images = {r.extra.get("images") for r in curves[0].levels}
    for c, color, marker in zip(curves, LEVELS, MARKERS, strict=False):
        style: dict[str, Any] = {"color": color, "label": c.label}
        _line(loss, c.points("loss"), **style)
        _line(heldout, c.points(kind), marker=marker, markersize=4, **style)
        if c.levels:
            x, y = [r.level for r in c.levels], [r.value for r in c.levels]
            bars = [r.stderr or 0.0 for r in c.levels]
            levels.errorbar(x, y, bars, marker=marker, markersize=3.5, elinewidth=0.8, **style)
            shared = [r for r in c.levels if base.get(r.level) and r.extra.get("images") in images]
            _line(ratio, ([r.level for r in shared], [r.value / base[r.level] for r in shared]), marker=marker, **style)
    for ax in axes:
        if ax.has_data():
            log_axis(ax, "xy" if ax in (loss, levels) else "x", fine="xy", ticks=6)
        else:
            ax.text(0.5, 0.5, "nothing measured", transform=ax.transAxes, ha="center", va="center")
    shared_legend(figure, axes, ncols=2)
    return figure


def _line(ax: Axes, points: tuple[Sequence[Any], Sequence[float]], **style: Any) -> None:
    if points[0]:
        ax.plot(*points, **style)


def _words(c: Curves) -> list[str]:
    score, nats = c.run.headline, c.run.nats
    words = [f"{c.letter}: {c.run.path}", c.run.state, f"{short(c.run.trained_nimg)} images"]
    if score is not None:
        words.append(f"{score.metric} {score.value:.4g} ({score.extractor.split(':')[0]}, {score.reference})")
    if nats is not None:
        words.append(f"{nats.value:.4g} nats")
    return words


def _entry(c: Curves) -> dict[str, Any]:
    """What is drawn of a run, for programs: pairs (images, value) and E(s)."""
    columns = ["loss", *([c.heldout] if c.heldout else [])]
    return {
        "run": c.letter,
        "path": str(c.run.path),
        "state": c.run.state,
        "metrics": {name: [list(pair) for pair in zip(*c.points(name), strict=True)] for name in columns},
        "denoise": [{"level": r.level, "value": r.value, "stderr": r.stderr} for r in c.levels],
    }


def _page(curves: Sequence[Curves], svg: str, sentences: Iterable[str]) -> str:
    def cells(c: Curves) -> list[str]:
        score, nats = c.run.headline, c.run.nats
        shown = "" if score is None else f"{score.metric} {score.value:.4g} {score.extractor.split(':')[0]}"
        return [
            c.letter,
            str(c.run.path),
            c.run.state,
            short(c.run.trained_nimg),
            shown,
            "" if nats is None else f"{nats.value:.4g}",
        ]

    def text(words: str) -> str:
        return html.escape(printable_line(words))

    rows = "".join("<tr>" + "".join(f"<td>{text(w)}</td>" for w in cells(c)) + "</tr>" for c in curves)
    listed = "".join(f"<li>{text(s)}</li>" for s in sentences)
    return _PAGE.format(rows=rows, figure=svg[svg.index("<svg") :], sentences=listed)
