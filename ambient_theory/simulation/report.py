"""What a simulation says: terminal tables, CSV, the summary as a dictionary. Reads rows only."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ambient_theory.bounds.laws import laws_for_atoms
from ambient_theory.shared.wide_tables import parts_that_fit
from ambient_theory.simulation.calibration import Calibration
from ambient_theory.simulation.cells import COLUMNS
from ambient_theory.simulation.collapse import Collapse
from ambient_theory.simulation.exchange import Exchange
from ambient_theory.simulation.grid import Skipped
from ambient_theory.simulation.slopes import Slope

Row = Mapping[str, Any]


def render_exchange(table: Sequence[Exchange]) -> RenderableType:
    """For a terminal: c over delta, simulated with interval, beside Fisher information and the powers of s."""
    first = table[0]
    sizes = f"{first.n_clean:.3g} clean and {first.n_noisy:.3g} noisy"
    title = f"Worth c of a noisy sample, k = {first.k}, s = {first.s:g}, {sizes}"
    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("delta", f"{first.estimator}", "95 %", "Fisher", "marginal"):
        out.add_column(name, justify="right", no_wrap=True)
    for law in laws_for_atoms(first.k):
        out.add_column(f"s^-{2 * law.m:g}", justify="right", no_wrap=True)
    for x in table:
        interval = "" if x.low is None or x.high is None else f"{x.low:.3g}..{x.high:.3g}"
        numbers = (x.fisher, x.marginal, *x.weights.values())
        out.add_row(f"{x.delta:g}", "-" if x.c is None else f"{x.c:.3g}", interval, *(f"{v:.3g}" for v in numbers))
    notes = [Text(f"  delta {x.delta:g}: no c reported, {x.note}") for x in table if x.c is None]
    words = Text("c at equal error; Fisher: of an efficient estimator; marginal: worth of the first noisy sample")
    return Group(out, words, *notes)


def render_calibration(found: Calibration, skipped: Sequence[Skipped]) -> RenderableType:
    """For a terminal: the constants, what they miss by, and every worst case beside its prediction."""
    out = Table(title=f"Constants of the bound, k = {found.k}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("constant", "value", "95 %"):
        out.add_column(name, justify="left" if name == "constant" else "right", no_wrap=True)
    for name, value in (("C_d", found.c_d), ("C_l", found.c_l)):
        if value is not None:
            out.add_row(name, f"{value[0]:.3g}", f"{value[1]:.3g}..{value[2]:.3g}")
    errors = Table(title="Median |log(predicted / measured)|", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    errors.add_column("worst cases", no_wrap=True)
    errors.add_column("", justify="right", no_wrap=True)
    errors.add_row("clean, fitted", f"{found.spread:.3f}")
    errors.add_row("mixtures, held out", f"{found.held_out:.3f}")
    errors.add_row("mixtures by n instead (control)", f"{found.naive:.3f}, {found.naive / found.held_out:.2g} times")
    if found.new_dimension is not None:
        errors.add_row(f"d = {found.new_dimension[0]}, by the other dimensions", f"{found.new_dimension[1]:.3f}")
    cells = Table(title="W1 in the worst case", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("d", "mix", "n", "measured", "predicted", "by n", "worst family"):
        cells.add_column(name, justify="left" if name in ("mix", "worst family") else "right", no_wrap=True)
    for p in found.points:
        numbers = (p.w1, p.predicted, p.naive)
        cells.add_row(
            str(p.d), p.mix + ("*" if p.fitted else ""), f"{p.n:.2g}", *(f"{v:.3g}" for v in numbers), p.family
        )
    words = [Text("* fitted"), Text(f"Verdict: {found.verdict}.", style="bold")]
    if found.k > 2:
        words.append(Text(f"C_d is not fitted at k = {found.k}: in d >= 2 only k = 2 is simulated by moments."))
    return Group(cells, out, errors, *words, *map(Text, _skipped_lines(skipped)))


def _skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    head = [f"Skipped {len(skipped)} cell(s)"] if skipped else []
    return head + [f"  {s.name}: {s.reason}" for s in skipped]


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV text with the columns `COLUMNS`, then any others in order of appearance."""
    extra = [c for c in dict.fromkeys(c for row in rows for c in row) if c not in COLUMNS]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*COLUMNS, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "sigmas": " ".join(f"{s:g}" for s in row["sigmas"])})
    return buffer.getvalue()


def summary(
    rows: Sequence[Row], slopes: Sequence[Slope], collapse: Sequence[Collapse], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """One JSON-ready object: rows, slopes, collapse, skipped cells with reasons."""
    return {
        "schema": "ambient.simulation/1",
        "rows": [dict(row) for row in rows],
        "slopes": [s.to_dict() for s in slopes],
        "collapse": [c.to_dict() for c in collapse],
        "skipped": [{"cell": s.name, "reason": s.reason} for s in skipped],
    }


def render(
    rows: Sequence[Row], slopes: Sequence[Slope], collapse: Sequence[Collapse], skipped: Sequence[Skipped]
) -> RenderableType:
    """For a terminal: W1 by n, slopes beside theory, verdicts in words, skipped cells."""
    parts: list[RenderableType] = [*_error_tables(rows)]
    if slopes:
        parts += [*_slope_tables(slopes), Text("Verdict", style="bold"), *map(Text, verdicts(slopes, collapse))]
    parts += map(Text, [*condition_lines(rows), *_skipped_lines(skipped)])
    return Group(*parts)


def condition_lines(rows: Sequence[Row]) -> list[str]:
    """A sentence for each mix in which a few samples carry an effective size: the bound's term says nothing there."""
    lines = []
    for name, size in (("weight_condition", "n_d"), ("low_weight_condition", "n_l")):
        above: dict[str, list[Row]] = {}
        for r in rows:
            if r[name] > 1 and not (size == "n_d" and r["d"] == 1):
                above.setdefault(r["mix"], []).append(r)
        for mix, group in above.items():
            sizes, worst = [r["n"] for r in group], max(r[name] for r in group)
            span = " to ".join(dict.fromkeys(f"{n:.2g}" for n in (min(sizes), max(sizes))))
            lines.append(
                f"  {mix}, n {span}: a few samples carry {size} (condition up to "
                f"{worst:.2g}, should be below 1), and its term of the bound is too small there"
            )
    return lines


def verdicts(slopes: Sequence[Slope], collapse: Sequence[Collapse]) -> list[str]:
    """One sentence for each (family, k, d, estimator) and finding, with the mixes that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for s in slopes:
        found.setdefault((_instance(s), f"{_estimator(s)}: {s.verdict}"), []).append(s.mix)
    lines = [f"  {instance}, {words} ({', '.join(mixes)})" for (instance, words), mixes in found.items()]
    return lines + [
        f"  {_instance(c)}, {_estimator(c)}: {c.verdict}"
        f" (median |log ratio| {c.spread_effective:.2f} against {c.axis}, {c.spread_n:.2f} against n)"
        for c in collapse
    ]


def _instance(s: Slope | Collapse) -> str:
    return f"{s.family} k={s.k}" + (f" d={s.d}" if s.d > 1 else "")


def _estimator(s: Slope | Collapse) -> str:
    return s.estimator if s.weights == "-" else f"{s.estimator}/{s.weights}"


def _error_tables(rows: Sequence[Row]) -> list[Table]:
    """W1 by n of each instance, one column a mix and estimator; more tables where they would not fit 80 columns."""
    tables = []
    for key in dict.fromkeys((r["family"], r["k"], r["d"]) for r in rows):
        group = [r for r in rows if (r["family"], r["k"], r["d"]) == key]
        columns = list(dict.fromkeys((r["mix"], r["estimator"], r["weights"]) for r in group))
        worst = max((r["w1_se"] / r["w1_mean"] for r in group if r["w1_mean"] > 0), default=0.0)
        title = f"W1, {key[0]}, k = {key[1]}, d = {key[2]} (standard errors up to {float(f'{100 * worst:.1g}'):g} %)"
        cells = {(r["n"], r["mix"], r["estimator"], r["weights"]): r for r in group}
        widths = [max(8, *map(len, _heading(*column))) for column in columns]
        for part in parts_that_fit(columns, widths, 70):
            table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
            table.add_column("n", justify="right", no_wrap=True)
            for column in part:
                table.add_column("\n".join(_heading(*column)), justify="right", no_wrap=True)
            for n in sorted({r["n"] for r in group}):
                found = [cells.get((n, *column)) for column in part]
                table.add_row(f"{n:.2g}", *("" if r is None else f"{r['w1_mean']:.3g}" for r in found))
            tables.append(table)
    return tables


def _heading(mix: str, estimator: str, weights: str) -> tuple[str, str]:
    return mix, estimator + ("" if weights == "-" else f"/{weights}")


def _slope_tables(slopes: Sequence[Slope]) -> list[Table]:
    """One table an instance: with the instance in its title it fits 80 columns."""
    tables = []
    for instance in dict.fromkeys(map(_instance, slopes)):
        title = f"Slope of log W1 against log n, {instance}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for name in ("mix", "estimator"):
            table.add_column(name, no_wrap=True)
        for name in ("slope", "95 %", "theory", "/atom"):
            table.add_column(name, justify="right", no_wrap=True)
        for s in (s for s in slopes if _instance(s) == instance):
            table.add_row(
                s.mix,
                _estimator(s),
                f"{s.slope:.3f}",
                f"{s.low:.3f}..{s.high:.3f}",
                "" if s.theory is None else f"{s.theory:.3f}",
                "" if s.against_mean_only is None else f"{s.against_mean_only[0]:.2g}",
            )
        tables.append(table)
    return tables
