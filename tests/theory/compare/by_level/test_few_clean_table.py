"""The table of few or no clean images: paired by seed, the share of the gap closed with its standard error."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from experiment_script import experiment
from level_sweeps import record

from ambient_theory.shared.records import NATS, Record

few_clean = experiment("few_clean")
SEEDS = {1: 0.5, 2: -0.5, 3: 1.0}
"""What a seed does to all of its models alike."""


def scored(cell: str, values: dict[int, float], metric: str = "fd", **other: Any) -> list[Record]:
    about = {"cell": cell, "metric": metric, "level": None, "reference": "heldout-clean", **other}
    return [replace(record(0, 10, 0.2, 1.0, value, seed), **about) for seed, value in values.items()]


def rows() -> list[Record]:
    at = {"clean 1000": 2.0, "noisy only: truncated": 6.0, "noisy only: full": 5.0, "noisy only: distilled": 3.0}
    found = [r for cell, mean in at.items() for r in scored(cell, {s: mean + d for s, d in SEEDS.items()})]
    found += scored("noisy only: full", {1: 20.5, 2: 21.5}, NATS)
    found += scored("noisy only: full", {1: 99.0}, reference="train-clean")
    return [*found, *scored("noisy only: full", {1: 99.0}, checkpoint="heldout-best")]


def row(text: list[str], method: str) -> list[str]:
    [line] = [line for line in text if line.startswith(f"| {method} |")]
    return [entry.strip() for entry in line.strip("|").split("|")]


def test_what_seeds_have_in_common_is_no_error_of_the_gap_closed() -> None:
    text = few_clean.tables(rows())
    assert "clean 1000 images: FD 2.33 ± 0.44, nats –, 3 seeds." in text
    assert text[-1] == "noisy only: least FD distilled, least nats full."
    ratio = [(3 + d) / (2 + d) for d in SEEDS.values()]
    stderr = np.std(ratio, ddof=1) / math.sqrt(3)
    expected = ["distilled", "3", "3.33 ± 0.44", f"{np.mean(ratio):.2f} ± {stderr:.2f}", "75 ± 0 %", "–"]
    assert row(text, "distilled") == expected
    assert row(text, "full")[4:] == ["25 ± 0 %", "21.0 ± 0.5"]
    assert row(text, "truncated")[4] == ""


def test_the_standard_error_is_that_of_a_ratio_of_means() -> None:
    rng = np.random.default_rng(0)
    own, truncated, clean = rng.normal([[3.0], [6.0], [2.0]], 0.02, (3, 400))
    share, stderr = few_clean.closed(list(zip(own, truncated, clean, strict=True)))
    # to first order the share moves by -own/4 + .25 truncated/4 + .75 clean/4
    expected = 0.02 / 4 * math.sqrt((1 + 0.25**2 + 0.75**2) / 400)
    assert abs(share - 0.75) < 4 * expected
    assert stderr == pytest.approx(expected, rel=4 / math.sqrt(2 * 400))


def test_rates_stand_by_duration() -> None:
    rows = scored("distilled 1e-4", {1: 8.0}, duration_nimg=10) + scored("distilled 1e-4", {1: 4.5}, duration_nimg=20)
    rows += scored("full", {1: 3.5}, duration_nimg=20) + scored(
        "full", {1: 9.0}, duration_nimg=20, reference="train-clean"
    )
    assert few_clean.rate_table(rows)[0] == "| training | 10 images | 20 images |"
    assert few_clean.rate_table(rows)[2:] == ["| distilled 1e-4 | 8.00 | 4.50 |", "| full |  | 3.50 |"]


def test_seeds_that_a_row_lacks_are_left_out_of_its_pairs() -> None:
    kept = [r for r in rows() if not (r.cell == "noisy only: truncated" and r.seed != 2)]
    text = few_clean.tables(kept)
    assert row(text, "distilled")[4] == "75 %"
    assert row(text, "distilled")[1] == "3"
    alone = few_clean.tables([r for r in rows() if "truncated" not in str(r.cell)])
    assert row(alone, "distilled")[4] == "–"


def test_a_splice_is_measured_by_the_gap_between_truncated_and_clean() -> None:
    at = {("noisy", "noisy", 0.2): 6.0, ("noisy", "clean", 0.0): 3.0, ("clean", "clean", 0.0): 2.0}
    rows = [
        {"seed": seed, "above": above, "below": below, "end": end, "fd": fd + shift}
        for (above, below, end), fd in at.items()
        for seed, shift in SEEDS.items()
    ]
    text = few_clean.gap_table({"images": 1000, "sigma": 0.2, "rows": rows}).splitlines()
    assert [line.rsplit("|", 2)[1].strip() for line in text[-3:]] == ["", "75 ± 0 %", "100 ± 0 %"]
    assert "| noisy images | noisy images | 0.2, posterior mean | 6.33" in text[-3]


def test_a_splice_uses_each_network_on_its_side_of_the_noise() -> None:
    gap = experiment("noisy_gap")
    denoise = gap.spliced(lambda x, sigma: x + 1, lambda x, sigma: x - 1, 0.2)
    x = torch.zeros(1)
    assert [float(denoise(x, torch.tensor(s, dtype=torch.float64))) for s in (0.3, 0.2, 0.1)] == [1.0, -1.0, -1.0]
