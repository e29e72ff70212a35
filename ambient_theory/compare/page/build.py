"""From records to a directory a person can read: index.html (one self-contained page), figures, table.csv, fit.json."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ambient_theory.compare.findings import SCHEMA, Findings, gather_findings
from ambient_theory.compare.page.cell_table import csv_text, table_rows
from ambient_theory.compare.page.context import page_context
from ambient_theory.compare.page.level_section import all_level_plates
from ambient_theory.compare.page.plates import plates_of
from ambient_theory.shared import plotting
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text, finite
from ambient_theory.shared.outdirs import check_outputs, has_schema
from ambient_theory.shared.records import Record

OUTPUTS = ("fit.json", "index.html", "table.csv", "figures")
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Report:
    """What was written and what was found. page: the path of index.html."""

    page: Path
    outdir: Path
    findings: Findings
    files: tuple[Path, ...] = field(default=())


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
    records that cannot be used, UsageError where `outdir` holds files of these names that are not of an earlier page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    out = Path(outdir)
    check_outputs(out, OUTPUTS, "page", own=has_schema(out / "fit.json", SCHEMA.partition("/")[0]))
    pictures = read_gallery(gallery)
    findings = gather_findings(records, confidence=confidence, metric=metric, extractor=extractor)
    with plotting.styled():
        plates = all_level_plates(findings.levels) | plates_of(findings)
    numbers, page, table = (out / name for name in OUTPUTS[:3])
    # first, since by it the folder is known as ours when this is killed and done again
    atomic_write_text(numbers, json.dumps(finite(findings.to_dict()), indent=1, allow_nan=False) + "\n")
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
    atomic_write_text(page, environment.get_template("report.html").render(**context))
    atomic_write_text(table, csv_text(table_rows(findings)))
    return Report(page, out, findings, (page, table, numbers, *files))
