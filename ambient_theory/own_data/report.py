"""What a fit of own data says: terminal tables, CSV, one JSON-ready object."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ambient_theory.bounds.sizes import size_of_least
from ambient_theory.own_data.fit import Fit
from ambient_theory.shared.files import finite
from ambient_theory.shared.plain_text import csv_field

SHOWN = 4
"""Coordinates of an atom that a terminal shows; atoms.csv has all."""

Cells = tuple[int, str, float, float | None, float | None, float | None]


def atom_rows(fit: Fit) -> Iterator[Cells]:
    """(atom from 1, `weight` or coordinate, estimate, standard error, low, high) of each number of the law."""
    model, u = fit.model, fit.intervals
    for j, weight in enumerate(model.weights_):
        sure = (None, None, None) if u is None else (u.weights_stderr[j], u.weights_low[j], u.weights_high[j])
        yield (j + 1, "weight", float(weight), *sure)
        for i, name in enumerate(fit.samples.names):
            sure = (None, None, None) if u is None else (u.means_stderr[j, i], u.means_low[j, i], u.means_high[j, i])
            yield (j + 1, name, float(model.means_[j, i]), *sure)


def summary(fit: Fit) -> dict[str, Any]:
    """One JSON-ready object; infinite values are null."""
    d, law = fit.model.diagnostics_, fit.model.law_
    return finite(
        {
            "schema": "ambient.fit/1",
            "source": fit.samples.where,
            "columns": list(fit.samples.names),
            "noise": {
                "from": fit.samples.noise,
                "least": float(fit.samples.noise_std.min()),
                "largest": float(fit.samples.noise_std.max()),
                "scale": None if fit.scale is None else fit.scale.to_dict(),
                "rescaled": fit.rescaled,
            },
            "n": len(fit.samples.x),
            "d": law.d,
            "k": law.k,
            "method": fit.model.method_,
            "converged": bool(fit.model.converged_),
            "weights": law.weights.tolist(),
            "atoms": law.atoms.tolist(),
            "intervals": None if fit.intervals is None else fit.intervals.to_dict(),
            "log_likelihood": fit.log_likelihood,
            "bic": fit.bic,
            "candidates": [asdict(c) for c in fit.candidates],
            "ratio_tests": {str(k): asdict(test) for k, test in fit.ratios.items()},
            "goodness_of_fit": None if fit.goodness is None else asdict(fit.goodness),
            "sizes": {
                "n_d": d.n_d,
                "n_l": d.n_l,
                "weight_condition": d.weight_condition,
                "low_weight_condition": d.low_weight_condition,
                "bound": {**asdict(d.bound), "total": d.bound.total},
            },
            "notes": list(fit.notes),
            "config": fit.config.to_dict(),
        }
    )


def atoms_csv(fit: Fit) -> str:
    """One row a number of the law."""
    return _csv(
        ("atom", "what", "estimate", "stderr", "low", "high"),
        ((j, csv_field(what), *map(_cell, values)) for j, what, *values in atom_rows(fit)),
    )


def posterior_csv(fit: Fit) -> str:
    """One row a sample: its row in the file, itself, its noise, posterior mean and deviation, chance of each atom."""
    names = [csv_field(name) for name in fit.samples.names]
    p = fit.posterior
    header = ["row", *names, "noise", *(f"mean_{name}" for name in fit.samples.names)]
    header += [*(f"std_{name}" for name in fit.samples.names), "atom", *(f"p_{j + 1}" for j in range(p.atoms.shape[1]))]
    numbers = np.column_stack([fit.samples.x, fit.samples.noise_std, p.mean, p.deviation]).tolist()
    atoms, chances = (p.atoms.argmax(axis=1) + 1).tolist(), p.atoms.tolist()
    return _csv(
        header,
        (
            (row, *(f"{v:.10g}" for v in values), atom, *(f"{v:.6g}" for v in share))
            for row, values, atom, share in zip(fit.samples.rows.tolist(), numbers, atoms, chances, strict=True)
        ),
    )


def _csv(header: Sequence[str], rows: Any) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


# ------------------------------------------------------------------------------------------------------ the terminal


def render(fit: Fit) -> RenderableType:
    """For a terminal of 80 columns."""
    parts: list[RenderableType] = [Text(fit.samples.sentence())]
    if len(fit.candidates) > 1:
        parts.append(_candidates(fit))
    parts.append(_atoms(fit))
    parts += map(Text, sentences(fit))
    parts += [Text(f"Note: {note}", style="yellow") for note in fit.notes]
    return Group(*parts)


def _candidates(fit: Fit) -> Table:
    table = _table("How many atoms", ("k", "log-likelihood", "AIC", "BIC", *(("p",) if fit.ratios else ())))
    chosen = fit.model.n_components
    for c in fit.candidates:
        row = [f"{c.k}" + ("*" if c.k == chosen else " "), f"{c.log_likelihood:,.2f}", f"{c.aic:,.2f}", f"{c.bic:,.2f}"]
        if fit.ratios:
            row.append(f"{fit.ratios[c.k].p:.3g}" if c.k in fit.ratios else "")
        table.add_row(*row)
    by = "the first whose p (against k + 1) is not small" if fit.ratios else "the least BIC"
    table.caption = f"* {by}"
    table.caption_justify = "left"
    return table


def _atoms(fit: Fit) -> Table:
    u = fit.intervals
    how = "" if u is None else f", {100 * u.level:g} % intervals ({u.kind})"
    k = fit.model.law_.k
    columns = ("atom", "", "estimate", *(() if u is None else ("error", "from", "to")))
    table = _table(f"{k} atom{'' if k == 1 else 's'} by {fit.model.method_}{how}", columns)
    d = len(fit.samples.names)
    for number, (j, what, *values) in enumerate(atom_rows(fit)):
        at = number % (d + 1)
        if at > SHOWN:
            continue
        shown = values if u is not None else values[:1]
        label = what if len(what) <= 18 else f"{what[:15]}..."
        table.add_row(str(j) if at == 0 else "", label, *("" if v is None else f"{v:.4g}" for v in shown))
        if at == SHOWN < d:
            table.add_row("", f"{d - SHOWN} more: atoms.csv")
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in ("atom", "") else "right", no_wrap=True)
    return table


def sentences(fit: Fit) -> list[str]:
    """Noise, goodness, effective sizes: a sentence each."""
    d = fit.model.diagnostics_
    out = [f"Log-likelihood {fit.log_likelihood:,.2f}" + ("." if fit.bic is None else f", BIC {fit.bic:,.2f}.")]
    if fit.scale is not None:
        s = fit.scale
        out.append(f"Noise: {s.sentence()}.")
        moved = f"One per cent of the noise moves the law by W1 {s.sensitivity / 100:.2g}"
        out.append(moved + (f", its whole interval by up to {s.reach:.2g}." if np.isfinite(s.reach) else "."))
    if fit.goodness is not None:
        verdict = "no misfit is seen" if fit.goodness.p >= 1 - fit.config.level else "they do not fit"
        out.append(f"Goodness of fit: p = {fit.goodness.p:.3g} ({fit.goodness.n_boot} bootstrap samples): {verdict}.")
    low, high = float(fit.samples.noise_std.min()), float(fit.samples.noise_std.max())
    noise = f"{low:.4g} for all" if low == high else f"{low:.4g} to {high:.4g}"
    k = fit.model.n_components
    of_l, of_d = (size_of_least(power, d.levels, d.counts)[0] for power in (4 * k - 2, 4))
    out.append(
        f"Noise {noise}; effective sizes n_l {of_l:.3g}, n_d {of_d:.3g}, in samples of the least noise; "
        f"weight conditions {d.low_weight_condition:.2g}, {d.weight_condition:.2g} (above 1 a few samples carry all)."
    )
    return out
