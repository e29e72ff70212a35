"""The measured cells as rows of a CSV file: what was measured and what the single-c fit says."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ambient_theory.compare.cells.tables import MeasuredCell
from ambient_theory.compare.findings import Findings
from ambient_theory.compare.scores.analysis import GroupAnalysis
from ambient_theory.shared.plain_text import csv_field


def _worth(a: GroupAnalysis, sigma_n: float | None) -> float | None:
    """The fitted worth at a level; 0 where nothing is noisy, None for a level outside the price fit."""
    if a.single is None:
        return None
    return 0.0 if sigma_n is None else (a.single.worth[sigma_n].value if sigma_n in a.single.worth else None)


def table_rows(findings: Findings) -> list[dict[str, Any]]:
    """One row a cell, all groups: what was measured and what the single-c fit says."""
    rows = []
    for a in findings.analyses:
        for cell in a.group.cells:
            n_index = predicted = None
            c = _worth(a, cell.sigma_n) if cell.n_clean else None
            if a.single is not None and c is not None:
                n_index = cell.n_clean + c * cell.n_noisy
                predicted = float(a.single.free.predict(*_as_arrays(cell))[0])
            rows.append(
                {
                    **a.group.key.to_dict(),
                    "cell": cell.grid_name,
                    "regime": cell.kind,
                    "n_clean": cell.n_clean,
                    "n_noisy": cell.n_noisy,
                    "sigma_n": cell.sigma_n,
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


def _as_arrays(cell: MeasuredCell) -> tuple[Any, Any, Any]:
    return np.array([float(cell.n_clean)]), np.array([float(cell.n_noisy)]), np.array([cell.sigma_n or 0.0])


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: csv_field(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    return buffer.getvalue()
