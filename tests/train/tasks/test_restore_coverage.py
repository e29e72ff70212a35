"""Intervals and restored images of a quickly trained model, on digits that it never saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ambient_train.data.load import load_images
from cli import app

SIGMA = 0.4


def ambient(*arguments: object) -> dict[str, Any]:
    found = CliRunner().invoke(app, [str(a) for a in (*arguments, "--device", "cpu", "--json", "--quiet")])
    assert found.exit_code == 0, found.output
    return dict(json.loads(found.stdout))


@pytest.mark.slow
def test_intervals_cover_heldout_digits_within_three_points_outside_of_the_background(tmp_path: Path) -> None:
    """60,000 images of training; 100 held-out digits, so that coverage has a standard error below .01.

    Pixels restored as nearly black are left out: there the originals are exactly -1 with a finite probability, and a
    closed interval that holds an atom covers more than it promises.
    """
    run, out = tmp_path / "run", tmp_path / "out"
    ambient("train", "--data", "digits", "--sigma", SIGMA, "--corruption", 0.5, "--duration", "60k", "--outdir", run)
    scores = ambient("restore", run, "--heldout", "--max-images", 100, "--outdir", out)["scores"]
    assert scores["coverage"]["promised"] == pytest.approx(0.9)
    with np.load(out / "restored.npz") as held:
        low, middle, high = held["q05"], held["q50"], held["q95"]
        restored, ids = held["images"], held["ids"]
    heldout = load_images("digits", split="heldout")
    originals = heldout.pixels(np.isin(heldout.ids, ids))
    seen = restored > -0.6

    def covered(widened: float) -> float:
        inside = (middle + widened * (low - middle) <= originals) & (originals <= middle + widened * (high - middle))
        return float(inside[seen].mean())

    assert abs(covered(1.0) - 0.9) < 0.03
    assert not abs(covered(0.75) - 0.9) < 0.03  # negative controls: intervals a quarter too narrow, or too wide
    assert not abs(covered(1.33) - 0.9) < 0.03
    assert 0.9 - 0.03 < scores["coverage"]["by_restored_intensity"][0]["exact"] <= 1
    psnr = {name: score["value"] for name, score in scores["psnr_db"].items()}
    assert psnr["posterior mean"] > psnr["Wiener filter"] + 1 > psnr["noisy image"] + 1
    # a calibrated sample has twice the error of the mean: 3 decibels
    assert 2.5 < psnr["posterior mean"] - psnr["one sample"] < 3.5
