"""From records to a directory a person can read: index.html (one self-contained page), figures, table.csv, fit.json."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import ambient_theory
from ambient_theory.compare.analysis import GroupAnalysis, analyse_group
from ambient_theory.compare.page import captions, figures, figures_simulation, style
from ambient_theory.compare.page.context import page as page_context
from ambient_theory.compare.panels import SimulationPanel, panels
from ambient_theory.compare.published import PublishedPrice, published_prices
from ambient_theory.compare.tables import group_records, select
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text
from ambient_theory.shared.records import Record

SCHEMA = "ambient.compare/1"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Findings:
    """All analyses of a set of records. leading: the best group of each data set, the others follow in analyses."""

    analyses: tuple[GroupAnalysis, ...]
    leading: tuple[GroupAnalysis, ...]
    simulation: tuple[SimulationPanel, ...]
    printed: tuple[PublishedPrice, ...]
    second_hand: tuple[Record, ...]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "version": ambient_theory.__version__,
            "confidence": self.confidence,
            "answers": captions.answers(self.leading, self.printed),
            "groups": [a.to_dict() for a in self.analyses],
            "printed_prices": [p.to_dict() for p in self.printed],
            "simulation": [p.to_dict() for p in self.simulation],
        }


@dataclass(frozen=True)
class Report:
    """What was written and what was found. page: the path of index.html."""

    page: Path
    outdir: Path
    findings: Findings
    files: tuple[Path, ...] = field(default=())


def analyse(
    records: Iterable[Record],
    *,
    confidence: float = 0.95,
    metric: str | None = None,
    extractor: str | None = None,
) -> Findings:
    """Group the records by what is comparable and analyse each group alone.

    Held-out cells and the two-term shape are worked out for the leading group of each data set. Raises DataError if
    there is no record, or none of the metric and extractor asked for.
    """
    rows = list(records)
    if not rows:
        raise DataError("there is no record to compare: give JSONL files of records, or directories that hold some")
    groups = select(group_records(rows), metric=metric, extractor=extractor)
    seen: set[tuple[str, str]] = set()
    analyses = []
    for group in groups:
        name = (group.key.source, group.key.dataset)
        analyses.append(analyse_group(group, confidence, deep=name not in seen))
        if analyses[-1].priced or group.key.source == "published":
            seen.add(name)
    leading: dict[tuple[str, str], GroupAnalysis] = {}
    for a in analyses:
        name = (a.group.key.source, a.group.key.dataset)
        if name not in leading or (a.priced and not leading[name].priced):
            leading[name] = a
    return Findings(
        analyses=tuple(analyses),
        leading=tuple(leading.values()),
        simulation=tuple(panels(rows)),
        printed=tuple(published_prices(rows)),
        second_hand=tuple(r for r in rows if r.extra.get("grade") == "second-hand"),
        confidence=confidence,
    )


@dataclass(frozen=True)
class Plate:
    """One figure of the page: SVG text for the page, both forms for files, a caption that says what was done."""

    name: str
    title: str
    caption: str
    svg: str
    forms: dict[str, bytes]


def plate(name: str, title: str, caption: str, figure: Figure) -> Plate:
    forms = style.to_bytes(figure)
    return Plate(name, title, caption, inline_svg(forms["svg"].decode(), name, title), forms)


def inline_svg(svg: str, name: str, title: str) -> str:
    """An SVG document as an element of a page: no prologue, ids made unique, named for screen readers, fluid width."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    head, rest = body.split(">", 1)
    width = re.search(r'\swidth="([\d.]+)pt"', head)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    most = f"{float(width.group(1)) * 1.28:.0f}px" if width else "100%"
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'{head} role="img" aria-label="{label}" style="width:100%;max-width:{most};height:auto">{rest}'


def plates_of(findings: Findings) -> dict[str, list[Plate]]:
    """Every figure of the page by section."""
    out: dict[str, list[Plate]] = {}
    with style.styled():
        for i, a in enumerate(a for a in findings.leading if a.group.key.source == "train"):
            out[f"data-{i}"] = _training_plates(a, findings, f"d{i}")
        rows = [r for a in findings.leading if a.group.key.source == "published" for r in a.rows]
        if rows:
            caption = captions.published_caption(rows)
            figure = figures.published_figure(rows)
            out["published"] = [plate("published", "Published scores: the worth of a noisy image", caption, figure)]
        anchor = findings.printed[0] if findings.printed else None
        caption = captions.identifiability_caption(anchor)
        figure = figures.identifiability_figure(anchor)
        out["laws"] = [plate("laws", "All laws through one price", caption, figure)]
        figure = figures_simulation.separation_figure()
        out["laws"].append(plate("separation", "Worth against separation", captions.separation_caption(), figure))
        shown = captions.shown_panels(findings.simulation)
        if shown:
            figure = figures_simulation.simulation_figure(shown)
            out["simulation"] = [
                plate("simulation", "W1 against n and n_l", captions.simulation_caption(shown), figure),
            ]
    return out


def _training_plates(a: GroupAnalysis, findings: Findings, prefix: str) -> list[Plate]:
    out = [plate(f"{prefix}-scores", "Scores", captions.scores_caption(a), figures.scores_figure(a))]
    if a.single is not None and any(s > 0 for s in a.single.worth):
        out.append(
            plate(f"{prefix}-price", "The price", captions.price_caption(a), figures.price_figure(a, findings.printed))
        )
    if a.equivalents or a.rates:
        out.append(plate(f"{prefix}-utility", "Marginal worth", captions.utility_caption(a), figures.utility_figure(a)))
    same = [b for b in findings.analyses if b.group.key.dataset == a.group.key.dataset and b.single is not None]
    if a.single is not None and len(same) > 1:
        caption, figure = captions.moves_caption(same), figures.moves_figure(same, list(a.single.worth))
        out.append(plate(f"{prefix}-moves", "Does c move?", caption, figure))
    if a.held_out:
        out.append(
            plate(
                f"{prefix}-heldout",
                "Cells the fit has not seen",
                captions.held_out_caption(a),
                figures.held_out_figure(a),
            )
        )
    return out


def read_gallery(paths: Sequence[str | os.PathLike[str]]) -> list[dict[str, str]]:
    """PNG files as data URIs with captions from their names. Raises DataError for a file that is not a PNG."""
    out = []
    for path in map(Path, paths):
        data = path.read_bytes() if path.is_file() else b""
        if not data.startswith(PNG):
            raise DataError(f"{path}: not a PNG image, so it cannot go into the gallery")
        caption = re.sub(r"[-_]+", " ", path.stem).strip()
        out.append({"caption": caption, "uri": "data:image/png;base64," + base64.b64encode(data).decode()})
    return out


def _worth(a: GroupAnalysis, sigma: float | None) -> float | None:
    """The fitted worth at a level; 0 where nothing is noisy, None for a level outside the price fit."""
    if a.single is None:
        return None
    return 0.0 if sigma is None else (a.single.worth[sigma].value if sigma in a.single.worth else None)


def table_rows(findings: Findings) -> list[dict[str, Any]]:
    """One row a cell, all groups: what was measured and what the single-c fit says."""
    rows = []
    for a in findings.analyses:
        for cell in a.group.cells:
            n_index = predicted = None
            c = _worth(a, cell.sigma) if cell.n_clean else None
            if a.single is not None and c is not None:
                n_index = cell.n_clean + c * cell.n_noisy
                predicted = float(a.single.free.predict(*_as_arrays(cell))[0])
            rows.append(
                {
                    **a.group.key.to_dict(),
                    "regime": cell.regime,
                    "n_clean": cell.n_clean,
                    "n_noisy": cell.n_noisy,
                    "sigma": cell.sigma,
                    "seeds": len(cell.values),
                    "value": cell.mean,
                    "stderr_over_seeds": cell.stderr,
                    "floor": cell.floor,
                    "memorisation_floor": cell.memorisation_floor,
                    "clean_equivalent_fit": n_index,
                    "predicted_fit": predicted,
                }
            )
    return rows


def _as_arrays(cell: Any) -> tuple[Any, Any, Any]:
    return np.array([float(cell.n_clean)]), np.array([float(cell.n_noisy)]), np.array([cell.sigma or 0.0])


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()


def finite(value: Any) -> Any:
    """JSON without NaN or infinity: those become null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def build_report(
    records: Iterable[Record],
    outdir: str | os.PathLike[str],
    *,
    gallery: Sequence[str | os.PathLike[str]] = (),
    confidence: float = 0.95,
    metric: str | None = None,
    extractor: str | None = None,
) -> Report:
    """Analyse `records` and write `outdir`/index.html, table.csv, fit.json and figures/ (SVG and PNG).

    gallery: PNG files (sample grids) shown with captions from their names. confidence: of every interval. metric,
    extractor: restrict the scores to one metric and one extractor (`name` or `name:hash`). Raises DataError for
    records that cannot be used.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    pictures = read_gallery(gallery)
    findings = analyse(records, confidence=confidence, metric=metric, extractor=extractor)
    plates = plates_of(findings)
    out = Path(outdir)
    files = []
    for section in plates.values():
        for p in section:
            for form, data in p.forms.items():
                files.append(out / "figures" / f"{p.name}.{form}")
                atomic_write_bytes(files[-1], data)
    environment = Environment(
        loader=PackageLoader("ambient_theory.compare.page", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = page_context(findings, plates, pictures)
    page = out / "index.html"
    atomic_write_text(page, environment.get_template("report.html").render(**context))
    atomic_write_text(out / "table.csv", csv_text(table_rows(findings)))
    atomic_write_text(out / "fit.json", json.dumps(finite(findings.to_dict()), indent=1, allow_nan=False) + "\n")
    return Report(page, out, findings, (page, out / "table.csv", out / "fit.json", *files))
