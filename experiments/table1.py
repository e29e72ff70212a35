"""The four regimes as a table and a figure, and where the paper's order holds: reads records, runs nothing.

    python experiments/table1.py experiments/results/table1_fashion.jsonl --outdir experiments/results

The order asked about (Daras, Cherapanamjeri, Daskalakis 2024, arXiv 2411.02780, Table 1): a mixture of a few clean and
many noisy images scores near all-clean data, and far below both its parts alone. Each comparison is Welch's t-test over
training seeds at 5 % after Holm's correction within one column; "holds" and "fails" are significant differences.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from scipy import stats

from ambient_theory.shared.files import atomic_write_text
from ambient_theory.shared.palette import BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from ambient_theory.shared.reading import read_records
from ambient_theory.shared.records import Record
from ambient_theory.shared.replicates import mean_of_known, replicates

mpl.use("Agg")
from matplotlib import pyplot as plt

Column = tuple[str, int]
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
ORDER = (
    "clean",
    "10 % clean + 90 % noisy sigma 0.2",
    "10 % clean + 90 % noisy sigma 0.6",
    "1 % clean + 99 % noisy sigma 0.2",
    "1 % clean + 99 % noisy sigma 0.6",
    "noisy only sigma 0.2",
    "noisy only sigma 0.6",
    "10 % clean only",
    "1 % clean only",
)


def by_cell(records: list[Record], metric: str, reference: str) -> dict[Column, dict[str, list[Record]]]:
    """Records of one metric and reference: (extractor, duration) -> cell -> one record a seed."""
    out: dict[Column, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for r in records:
        if r.metric == metric and r.reference == reference and r.duration_nimg is not None:
            out[r.extractor, r.duration_nimg][str(r.cell)].append(r)
    return out


def comparisons() -> list[tuple[str, str, str]]:
    """(sentence, the cell that should score lower, the cell that should score higher)."""
    out = []
    for share in ("10 %", "1 %"):
        noisy_share = "90 %" if share == "10 %" else "99 %"
        for sigma in ("0.2", "0.6"):
            mixed = f"{share} clean + {noisy_share} noisy sigma {sigma}"
            out.append((f"{share} mix below noisy only, sigma {sigma}", mixed, f"noisy only sigma {sigma}"))
            out.append((f"{share} mix below its clean part, sigma {sigma}", mixed, f"{share} clean only"))
    return out


def verdicts(cells: dict[str, list[Record]]) -> dict[str, str]:
    """For each comparison `holds`, `fails` or `open`, with the ratio of the means; Holm's correction at 5 %."""
    rows = []
    for sentence, low, high in comparisons():
        a, b = ([r.value for r in cells.get(name, [])] for name in (low, high))
        if len(a) > 1 and len(b) > 1:
            p = float(stats.ttest_ind(a, b, equal_var=False).pvalue)
            rows.append((p, sentence, float(np.mean(b) / np.mean(a))))
    out, alive = {}, True
    for rank, (p, sentence, ratio) in enumerate(sorted(rows)):
        alive = alive and p <= 0.05 / (len(rows) - rank)
        word = "open" if not alive else "holds" if ratio > 1 else "fails"
        out[sentence] = f"{word} ({ratio:.2g}x)"
    return out


def mean_error(values: list[float]) -> str:
    found = replicates(values)
    if found.stderr is None:
        return f"{found.mean:.3g}"
    digits = max(0, 1 - math.floor(math.log10(found.stderr))) if found.stderr > 0 else 3
    return f"{found.mean:.{digits}f} ± {found.stderr:.{digits}f}"


def markdown(records: list[Record], metric: str, reference: str) -> str:
    """The table and the verdicts as Markdown."""
    columns = by_cell(records, metric, reference)
    names = [n for n in ORDER if any(n in cells for cells in columns.values())]
    heads = [f"{e.split(':')[0]}, {d:,} img" for e, d in columns]
    lines = [
        f"Frechet distance ({metric}) against {reference} images, mean ± standard error over training seeds.",
        "",
        "| cell | seeds | " + " | ".join(heads) + " | repeating its clean images |",
        "|---|---|" + "---|" * (len(heads) + 1),
    ]
    for name in names:
        groups = [cells.get(name, []) for cells in columns.values()]
        memory = {}
        for (extractor, _), group in zip(columns, groups, strict=True):
            copies = mean_of_known(r.extra.get("memorisation_floor") for r in group)
            if copies is not None:
                memory[extractor.split(":")[0]] = copies
        floors = ", ".join(f"{k} {v:.3g}" for k, v in memory.items())
        seeds = max(len(g) for g in groups)
        scores = " | ".join(mean_error([r.value for r in g]) if g else "" for g in groups)
        lines.append(f"| {name} | {seeds} | {scores} | {floors} |")
    floor_row = []
    for cells in columns.values():
        floor = mean_of_known(r.extra.get("floor") for group in cells.values() for r in group)
        floor_row.append("" if floor is None else f"{floor:.3g}")
    lines.append("| *as many real images* | | " + " | ".join(floor_row) + " | |")
    lines += ["", "Does the paper's order hold? (ratio of the means; Welch's t over seeds, Holm at 5 % a column)", ""]
    lines += ["| comparison | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    found = [verdicts(cells) for cells in columns.values()]
    for sentence, _, _ in comparisons():
        lines.append(f"| {sentence} | " + " | ".join(v.get(sentence, "") for v in found) + " |")
    return "\n".join(lines) + "\n"


def figure(records: list[Record], metric: str, reference: str, path: Path) -> None:
    """One panel for each extractor: every seed a point, 1x and 4x duration side by side, log scale."""
    columns = by_cell(records, metric, reference)
    extractors = list(dict.fromkeys(e for e, _ in columns))
    durations = sorted({d for _, d in columns})
    names = [n for n in ORDER if any(n in cells for cells in columns.values())]
    fig, axes = plt.subplots(1, len(extractors), figsize=(5.5 * len(extractors), 4.6), sharey=True, squeeze=False)
    for axis, extractor in zip(axes[0], extractors, strict=True):
        for k, duration in enumerate(durations):
            cells = columns[extractor, duration]
            for row, name in enumerate(names):
                values = [r.value for r in cells.get(name, [])]
                y = np.full(len(values), row + (k - (len(durations) - 1) / 2) * 0.3)
                axis.plot(
                    values, y, "o", ms=4, color=COLOURS[k], alpha=0.8, label=f"{duration:,} images" if not row else None
                )
        floors = [
            r.extra["floor"] for d in durations for g in columns[extractor, d].values() for r in g if r.extra["floor"]
        ]
        if floors:
            axis.axvline(float(np.mean(floors)), color="0.4", ls=":", lw=1, label="as many real images")
        axis.set_xscale("log")
        axis.set_title(f"features: {extractor.split(':')[0]}")
        axis.set_xlabel(f"Frechet distance to {reference} images (lower is better)")
        axis.grid(axis="x", color="0.9")
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="upper center", ncols=len(handles), frameon=False)
    fig.tight_layout(rect=(0, 0, 1, 0.94))
    for suffix in (".svg", ".png"):
        fig.savefig(path.with_suffix(suffix), dpi=130, metadata={"Date": None} if suffix == ".svg" else None)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--outdir", type=Path, default=Path("experiments/results"))
    parser.add_argument("--metric", default="fd")
    parser.add_argument("--reference", default="heldout-clean")
    options = parser.parse_args()
    records = read_records(options.records)
    text = markdown(records, options.metric, options.reference)
    stem = options.outdir / options.records.stem
    atomic_write_text(stem.with_suffix(".md"), text)
    figure(records, options.metric, options.reference, stem)
    print(text)


if __name__ == "__main__":
    main()
