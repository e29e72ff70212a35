"""`ambient runs compare`: what is drawn is what metrics and records hold, and files of others stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from invoke import TINY, ambient
from PIL import Image

from ambient_theory.shared.files import read_sealed


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run like `trained`, but for its seed, its loss and its duration; not scored, with a name of odd characters."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "tiny.toml").write_text(TINY)
    out = folder / "$b$ <i>_"
    settings = ("--seed", 5, "--sigma", 0.3, "--corruption", 0.5, "--weight", "y", "--duration", 128, "--no-score")
    result = ambient(
        "train", "--config", folder / "tiny.toml", "--outdir", out, "--device", "cpu", "--quiet", *settings
    )
    assert result.exit_code == 0, result.output
    return out


def test_the_curves_are_those_of_metrics_and_records(trained: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "curves.png"
    result = ambient("runs", "compare", trained, other, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    first, second = answer["runs"]
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert first["metrics"]["loss"] == [[line["nimg"], line["loss"]] for line in lines]
    assert [n for n, _ in second["metrics"]["loss"]] == list(range(16, 129, 16))
    (point,) = read_sealed(trained / "result.json")["points"]
    errors = {
        r["level"]: r["value"] for r in point["records"] if r["metric"] == "denoise" and r["checkpoint"] == "last"
    }
    assert {p["level"]: p["value"] for p in first["denoise"]} == errors
    assert len(errors) > 5
    assert second["denoise"] == []
    with Image.open(out) as image:
        assert image.format == "PNG"
    assert answer["files"] == [str(out)]


def test_what_differs_and_what_does_not_compare_is_said(trained: Path, other: Path, tmp_path: Path) -> None:
    result = ambient("runs", "compare", trained, other, "--out", tmp_path / "curves.png")
    assert "A -> B: " in result.stdout
    for words in ("seed: 0 -> 5", "sigma: 0.0 -> 0.3", "weight: 'x0' -> 'y'", "duration: 96 -> 128"):
        assert words in result.stdout
    assert "different losses" in result.stderr
    assert "B has no denoising error by level yet" in result.stderr
    again = ambient("runs", "compare", trained, trained, "--out", tmp_path / "same.png")
    assert "->" not in again.stdout
    assert again.stderr == ""


def test_the_page_needs_no_other_file_and_shows_names_as_text(trained: Path, other: Path, tmp_path: Path) -> None:
    page = tmp_path / "curves.html"
    result = ambient("runs", "compare", trained, other, "--out", tmp_path / "curves.png", "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "<i>" not in text
    assert "$b$ &lt;i&gt;_" in text
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    drawn = " ".join(ElementTree.fromstring(svg).itertext())
    assert "B: $b$ <i>_" in drawn
    assert "src=" not in text
    assert "http" not in text.replace(svg, "")


def test_files_that_are_there_stay(trained: Path, other: Path, tmp_path: Path) -> None:
    for name in ("mine.png", "mine.html"):
        (tmp_path / name).write_text("mine")
    words = ("runs", "compare", trained, other, "--out", tmp_path / "mine.png", "--html", tmp_path / "mine.html")
    result = ambient(*words)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "--overwrite" in result.stderr
    beside = ambient("runs", "compare", trained, other, "--out", tmp_path / "new.png", "--html", tmp_path / "mine.html")
    assert beside.exit_code == 2
    assert not (tmp_path / "new.png").exists()  # nothing is half written
    assert {p.read_text() for p in tmp_path.iterdir()} == {"mine"}
    assert ambient(*words, "--overwrite").exit_code == 0
    assert (tmp_path / "mine.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("names", "out", "code", "words"),
    [
        (["RUN"], "a.png", 2, "give two to 6 run directories"),
        (["RUN"] * 7, "a.png", 2, "give two to 6 run directories"),
        (["RUN", "nothing"], "a.png", 3, "no run of ambient train"),
        (["RUN", "RUN"], "a.jpg", 2, "ends in .png"),
        (["RUN", "RUN"], "nowhere/a.png", 3, "no such directory"),
        (["BARE", "BARE"], "a.png", 3, "train them first"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    trained: Path, tmp_path: Path, names: list[str], out: str, code: int, words: str
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(trained / "manifest.json", bare)
    places = {"RUN": trained, "BARE": bare}
    result = ambient("runs", "compare", *(places.get(n, tmp_path / n) for n in names), "--out", tmp_path / out)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
