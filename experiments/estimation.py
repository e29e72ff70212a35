"""How well noise is estimated where it is known: white noise by level, intervals, and correlated noise that is flagged.

    python experiments/estimation.py           # results/estimation.json here, and docs/data.md: 13 minutes of one core
    python experiments/estimation.py --tables  # the lines of docs/data.md from that file, within a second

Images of three sets get known noise; what `ambient data noise` is built of says how much there is. Images and noise are
drawn anew for each row. The seeds below are for this file alone: nothing was chosen on
them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from marked_page import MarkedPage

from ambient_theory.shared.files import atomic_write_text, read_json
from ambient_train.data.estimation.level import CLEAN, Level, level_of_set, levels_of_images, way_of_images
from ambient_train.data.estimation.whiteness import whiteness
from ambient_train.data.load import load_images

ROOT = Path(__file__).parents[1]
OUT, PAGE = ROOT / "experiments" / "results" / "estimation.json", ROOT / "docs" / "data.md"
MARKED = MarkedPage(PAGE, "estimation.py")
SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0)
SETS = {"digits": 500, "photos32": 200, "fashion": 200}
"""Images of one draw, for the level."""
DRAWS = {"digits": 80, "photos32": 40, "fashion": 60}
IMAGES_OF = 4
"""Draws of which each image is measured by itself, too."""
RHO, CORRELATED_IMAGES, CORRELATED_DRAWS = 0.3, 200, 20
AXES = ((3,), (2, 3), (2,))
"""Noise is correlated across, both ways and down, in turn."""
SEED = 80_000


def images_of(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, C, H, W] in units of [-1, 1], drawn without replacement."""
    every = load_images(name, split="all")
    return every.pixels(np.sort(rng.permutation(len(every))[:count])).astype(np.float64)


def correlated(shape: tuple[int, ...], rho: float, axes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Unit noise whose neighbours along each axis have correlation rho: a z_i + b z_(i-1), ab = rho, a^2 + b^2 = 1."""
    angle = np.arcsin(2 * rho) / 2
    noise = rng.standard_normal(shape)
    for axis in axes:
        noise = np.cos(angle) * noise + np.sin(angle) * np.roll(noise, 1, axis)
    return noise


def covers(level: Level, sigma: float) -> bool:
    return level.low <= sigma <= level.high


def measured(name: str, sigma: float) -> dict[str, Any]:
    """One row: levels of sets and of single images, and what is flagged, of one set of images at one level."""
    row = SIGMAS.index(sigma)
    levels, errors, inside = [], [], []
    for draw in range(DRAWS[name]):
        rng = np.random.default_rng((SEED, row, draw))
        x = images_of(name, SETS[name], rng)
        y = x + sigma * rng.standard_normal(x.shape)
        levels.append(level_of_set(y))
        if draw < IMAGES_OF:
            each = levels_of_images(y, way_of_images(y), shared=levels[-1])
            errors += [abs(one.value / sigma - 1) for one in each]
            inside += [covers(one, sigma) for one in each]
    flagged = {}
    for rho in (RHO, 0.0):
        found = []
        for draw in range(CORRELATED_DRAWS):
            rng = np.random.default_rng((SEED, row, DRAWS[name] + draw))
            x = images_of(name, CORRELATED_IMAGES, rng)
            kind = whiteness(x + sigma * correlated(x.shape, rho, AXES[draw % len(AXES)], rng))
            found.append(kind is not None and not kind.white)
        flagged[rho] = int(sum(found))
    return {
        "set": name,
        "sigma": sigma,
        "draws": len(levels),
        "bias": float(np.mean([level.value / sigma - 1 for level in levels])),
        "median_error": float(np.median([abs(level.value / sigma - 1) for level in levels])),
        "half_width": float(np.median([(level.high - level.low) / 2 / sigma for level in levels])),
        "covered": sum(covers(level, sigma) for level in levels),
        "images": len(inside),
        "median_error_of_images": float(np.median(errors)),
        "covered_images": int(sum(inside)),
        "correlated_draws": CORRELATED_DRAWS,
        "flagged": flagged[RHO],
        "flagged_white": flagged[0.0],
    }


def result() -> dict[str, Any]:
    rows = [measured(name, sigma) for name in SETS for sigma in SIGMAS]
    clean = {name: level_of_set(images_of(name, SETS[name], np.random.default_rng(SEED))).value for name in SETS}
    return {"schema": "ambient.estimation/1", "seed": SEED, "rho": RHO, "clean": clean, "rows": rows}


def tables(found: dict[str, Any]) -> str:
    """The marked lines of docs/data.md."""
    rows = found["rows"]
    out = [
        "| images | σ | median error, a set | 90 % interval holds σ | median error, an image | 90 % interval holds σ "
        f"| correlation {found['rho']:g} flagged | white noise flagged |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        out.append(
            f"| {r['set']} | {r['sigma']:g} | {r['median_error']:.1%} | {r['covered']} of {r['draws']} | "
            f"{r['median_error_of_images']:.0%} | {r['covered_images'] / r['images']:.0%} | "
            f"{r['flagged']} of {r['correlated_draws']} | {r['flagged_white']} of {r['correlated_draws']} |"
        )
    out.append("")
    for name in dict.fromkeys(r["set"] for r in rows):
        own = [r for r in rows if r["set"] == name]
        covered, draws = sum(r["covered"] for r in own), sum(r["draws"] for r in own)
        flagged, tried = sum(r["flagged"] for r in own), sum(r["correlated_draws"] for r in own)
        false = sum(r["flagged_white"] for r in own)
        out.append(
            f"- {name}, {SETS[name]} images a draw: {covered / draws:.0%} of {draws} intervals of sets hold σ "
            f"(standard error of a row at 90 %: {np.sqrt(0.09 / DRAWS[name]):.0%}); "
            f"{flagged / tried:.0%} of {tried} draws of correlated noise are flagged, {false / tried:.0%} of white "
            f"noise; clean images show {found['clean'][name]:.2g} (below {CLEAN:g} is clean)."
        )
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="the tables alone, from what was measured")
    if not parser.parse_args().tables:
        atomic_write_text(OUT, json.dumps(result(), indent=1) + "\n")
    MARKED.write(tables(read_json(OUT)))


if __name__ == "__main__":
    main()
