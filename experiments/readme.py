"""What README.md says of the findings: its picture from the shipped records, its numbers from two pages of docs.

python experiments/readme.py            # writes docs/figures/two-goods.svg and the marked lines of README.md
python experiments/readme.py --numbers  # the marked lines alone, within a second
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from marked_page import MarkedPage
from methods import SAME

from ambient_theory.compare.by_level.beside import ALL
from ambient_theory.compare.by_level.findings import LevelFindings, analyse_levels
from ambient_theory.compare.by_level.judgement import Judgement
from ambient_theory.compare.cells.grouping import read_shipped
from ambient_theory.shared.files import atomic_write_bytes
from ambient_theory.shared.palette import BLACK, BLUE, GREY, RED

ROOT = Path(__file__).parents[1]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PICTURE = DOCS / "figures" / "two-goods.svg"
RULE = "at fixed compute"
DEFAULT, BEFORE = "x0, dropout 0.1, clean-first", "x0, dropout 0.1"
"""Today's default among the methods of docs/methods.md, and the one before it, with noisy images from the start."""
WHEN = {
    DEFAULT: "where noisy images come in after the clean ones (the default)",
    BEFORE: "where they are there from the start",
}
MARKED = MarkedPage(README, "readme.py")
LEAST = 0.003
"""Lower end of the axis of worths; what lies below it is drawn there."""


def rows_of(page: str, heading: str) -> list[dict[str, str]]:
    """The first table below a heading of a Markdown page, a row each as column -> cell."""
    lines = page.split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


def numbers(findings: str, methods: str) -> str:
    """The marked lines of README.md, from docs/findings.md and docs/methods.md."""
    laws = [r for r in rows_of(findings, "## Which law survives?") if r["rule"] == RULE]
    found = [r for r in rows_of(findings, "## What is a noisy image worth, by level?") if r["rule"] == RULE]
    rejected = [law["V/(V + v)"] for law in laws].count("rejected")
    beside = [  # the first table is that of the leading rule, fixed compute
        (*re.fullmatch(r"(.*) clean \+ (.*) noisy \(σ (.*)\)", row["mixture"]).groups(), row)
        for row in rows_of(findings, "## What is a noisy image worth beside what is there already?")
        if row["levels"] == ALL and int(row["seeds"]) > 1
    ]
    sizes = list(dict.fromkeys((clean, noisy) for clean, noisy, _, _ in beside))
    titles = [f"{clean} clean + {noisy} noisy" for clean, noisy in sizes]
    out = [
        "Noisy images for one clean one, in nats of the held-out denoising error over all levels, of each mixture by "
        "itself, trained with noisy images from the start (`--draw sigma-first`, not today's default); right, above "
        "the noise, one price where mixtures agree, else the least and the greatest of theirs:\n",
        f"| noise σ | {' | '.join(titles)} | above σ | law that survives |",
        "|---" * (len(titles) + 3) + "|",
    ]
    together = {row["σ"]: (row["price above σ"], law["survives"]) for row, law in zip(found, laws, strict=True)}
    for sigma in dict.fromkeys(s for _, _, s, _ in beside):
        prices = {(clean, noisy): row["price"] for clean, noisy, s, row in beside if s == sigma}
        cells = [sigma, *(prices.get(size, "–") for size in sizes), *together.get(sigma, ("–", "–"))]
        out.append(f"| {' | '.join(cells)} |")
    out.append(
        "\n*Free worths*: one for each level, where the data reject two goods alone. The formula V/(V + v), which has "
        f"no constant, is rejected at {rejected} of {len(laws)} noise levels."
    )
    confirmed = list(re.finditer(r"^### Confirmation, ([^(]*) \(.*$", methods, re.MULTILINE))
    assert confirmed, "docs/methods.md has the confirmation"
    kept, faulty = [], []
    for section in confirmed:
        body = methods[section.end() :].partition("\n### ")[0]
        faulty += re.findall(r"^\*\*(\d+ of these \d+) trainings", body, re.MULTILINE)
        same = rows_of(body, SAME)  # the same mixtures and seeds under both draws
        lost = {(row["method"], row["rule"]): row["65,536 images"] for row in same}
        own = [m for m in (DEFAULT, BEFORE) if (m, "at fixed compute") in lost]
        each = (
            f"{lost[m, 'at the held-out best']} are lost at the held-out best checkpoint and "
            f"{lost[m, 'at fixed compute']} at the last one {WHEN[m]}"
            for m in own
        )
        kept.append(f"{section[1]}: {', '.join(each)}")
    out.append(
        "\nDoes a mixture lose to a part of its own data? Of the levels compared (by chance at most), after 65,536 "
        f"training images, over the same mixtures and seeds, {'; '.join(kept)}."
    )
    if faulty:
        out.append(
            f"{' and '.join(n.replace(' these', '') for n in faulty)} of these trainings are to be made again: they "
            "went on from their held-out best checkpoint once that had been scored (docs/methods.md)."
        )
    return "\n".join(out) + "\n"


def picture(found: LevelFindings) -> bytes:
    """Worth of a noisy image by diffusion level, a panel for each noise of the data, as SVG."""
    from ambient_theory.shared import plotting

    with plotting.styled():
        figure = plotting.new_figure(9.2, 3.0)
        judged = list(found.priced.values())
        axes = np.atleast_1d(figure.subplots(1, len(judged), sharey=True))
        for ax, each in zip(axes, judged, strict=True):
            _panel(ax, each, found.table.levels)
            plotting.log_axis(ax)
            ax.set_ylim(LEAST, 1.4)
        axes[0].set_ylabel("a noisy image, in clean ones")
        plotting.shared_legend(figure, list(axes), ncols=4)
        return plotting.to_bytes(figure)["svg"]


def _panel(ax, judged: Judgement, levels: Sequence[float]) -> None:
    sigma = judged.sigma_n
    open_ends = [[i.value, i.low or 0.0, np.inf if i.high is None else i.high] for i in judged.free]
    value, low, high = np.clip(open_ends, LEAST, 9.0).T
    bars = np.maximum([value - low, high - value], 0.0)
    ax.errorbar(levels, value, yerr=bars, fmt="o", color=BLACK, markersize=3.5, linewidth=0.8, label="level by level")
    for good, colour, low, high, name in (
        (judged.fine, RED, levels[0] / 1.1, sigma, "below the noise"),
        (judged.coarse, BLUE, sigma, levels[-1] * 1.1, "above the noise"),
    ):
        ax.fill_between([low, high], max(good.low, LEAST), good.high, color=colour, alpha=0.18, linewidth=0)
        ax.plot([low, high], [good.value] * 2, color=colour, linewidth=2, label=name)
    ax.axvline(sigma, color=GREY, linewidth=1, linestyle="--", label="noise of the data")
    ax.axhline(1, color=GREY, linewidth=0.6)
    ax.set_xlim(levels[0] / 1.1, levels[-1] * 1.1)
    ax.set_title(f"noise σ {sigma:g}")
    ax.set_xlabel("diffusion level")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", action="store_true", help="the marked lines alone")
    if not parser.parse_args().numbers:
        found, _ = analyse_levels(read_shipped().records)
        chosen = next(f for f in found if f.table.key.rule == RULE and f.priced)
        atomic_write_bytes(PICTURE, picture(chosen))
    made = numbers(*((DOCS / page).read_text(encoding="utf-8") for page in ("findings.md", "methods.md")))
    MARKED.write(made)


if __name__ == "__main__":
    main()
