"""The page: self-contained, readable by program and person, the same each time."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from compare_sweeps import TRUTH, record, simulated, sweep

from ambient_theory.compare.cells.grouping import shipped_records
from ambient_theory.compare.findings import gather_findings
from ambient_theory.compare.page.build import build_report
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import finite

# One pixel, transparent.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc33"
    "0000000049454e44ae426082"
)


def shipped_published():
    return [r for r in shipped_records() if r.source == "published"]


class Page(HTMLParser):
    """Tags, ids and references of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.references, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.references.append(value)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    rows = sweep(rng) + sweep(rng, duration_nimg=1_600_000)
    rows += [record(0, 60_000, s, 3.0 + seed, seed) for s in TRUTH for seed in range(3)]
    rows += simulated(2, "hard", lambda a, b, size: size ** (-1 / 6))
    return [*rows, *shipped_published()]


@pytest.fixture(scope="module")
def report(records, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    (out / "sigma-0.2_mix.png").write_bytes(PIXEL)
    return build_report(records, out / "page", gallery=[out / "sigma-0.2_mix.png"])


@pytest.fixture(scope="module")
def page(report):
    return Page(report.page.read_text(encoding="utf-8"))


def test_the_page_asks_for_nothing_from_anywhere(page, report):
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    beside = {"table.csv", "fit.json"}
    assert all(r in beside or r.startswith(("#", "data:image/png;base64,")) for r in page.references)
    text = report.page.read_text(encoding="utf-8")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_every_id_is_unique_and_every_inner_reference_resolves(page):
    assert len(page.ids) == len(set(page.ids))
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)


def test_the_page_answers_on_top_with_the_interval(report):
    text = report.page.read_text(encoding="utf-8")
    single = report.findings.leading[0].single
    price = single.worth[0.2].inverse()
    sentence = (
        f"one clean image is worth {price.value:.2f} noisy ones (95 % interval {price.low:.2f} to {price.high:.2f}"
    )
    assert sentence in text
    assert text.index(sentence) < text.index("<figure")


def test_every_figure_is_inline_and_beside_the_page_in_both_forms(report, page):
    svg = sorted(p.stem for p in (report.outdir / "figures").glob("*.svg"))
    png = sorted(p.stem for p in (report.outdir / "figures").glob("*.png"))
    assert svg == png
    assert page.tags.count("svg") == len(svg) >= 6
    assert page.tags.count("figcaption") == len(svg) + 1  # the gallery
    assert {f"figure-{name}" for name in svg} <= set(page.ids)


def test_no_fitted_curve_is_called_the_bound(page):
    text = " ".join(page.text).lower()
    for match in re.finditer(r"\bthe bound\b", text):
        around = text[max(0, match.start() - 120) : match.end() + 20]
        assert "shape" in around or "nothing about the bound" in around


def test_the_table_and_the_json_agree_with_the_fit(report):
    rows = list(csv.DictReader((report.outdir / "table.csv").open(encoding="utf-8")))
    stored = json.loads((report.outdir / "fit.json").read_text(encoding="utf-8"))
    first = stored["groups"][0]
    c = first["single_c"]["worth_c"]["0.2"][0]
    (row,) = [
        r
        for r in rows
        if r["n_clean"] == "600"
        and r["n_noisy"] == "6000"
        and r["sigma_n"] == "0.2"
        and r["duration_nimg"] == str(first["group"]["duration_nimg"])
        and r["source"] == "train"
    ]
    assert float(row["clean_equivalent_fit"]) == pytest.approx(600 + c * 6_000)
    assert float(row["predicted_fit"]) == pytest.approx(float(row["value"]), rel=0.2)
    assert stored["answers"] == report.findings.to_dict()["answers"]


def test_the_same_records_give_the_same_bytes(tmp_path):
    rows = simulated(2, "hard", lambda a, b, size: size ** (-1 / 6)) + shipped_published()
    one, two = (build_report(rows, tmp_path / name) for name in "ab")
    assert [f.relative_to(one.outdir) for f in one.files] == [f.relative_to(two.outdir) for f in two.files]
    for first, second in zip(one.files, two.files, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_the_same_records_give_the_same_numbers():
    rows = sweep(np.random.default_rng(4))
    assert finite(gather_findings(rows).to_dict()) == finite(gather_findings(rows).to_dict())


def test_noisy_only_models_are_on_the_page_and_in_no_fit(report):
    (alone,) = [a.group for a in report.findings.analyses if a.group.key.source == "train" and a.group.noisy_only]
    assert sorted(c.sigma_n for c in alone.noisy_only) == sorted(TRUTH)
    rows = list(csv.DictReader((report.outdir / "table.csv").open(encoding="utf-8")))
    shown = [r for r in rows if r["source"] == "train" and r["n_clean"] == "0"]
    assert [(r["n_noisy"], r["predicted_fit"]) for r in shown] == [("60000", "")] * 2
    for a in report.findings.analyses:
        if a.single is not None:
            assert np.all(a.single.free.table.n_clean > 0)


def test_held_out_cells_expose_the_naive_count(report):
    found = {h.curve: h for h in report.findings.leading[0].held_out if h.split == "random half"}
    assert found["free c at each σ"].median < found["naive n (c = 1)"].median / 2
    assert found["free c at each σ"].median < found["clean only (c = 0)"].median / 2


def test_records_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="no record"):
        build_report([], tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match="not a PNG"):
        build_report(shipped_records(), tmp_path, gallery=[tmp_path / "text.png"])


def test_one_seed_a_cell_says_so():
    found = gather_findings(sweep(np.random.default_rng(1), seeds=1))
    for sentence in found.to_dict()["answers"]:
        assert "one training seed" in sentence
        assert "interval" in sentence
        assert "%" not in sentence


def test_clean_only_records_say_why_nothing_is_priced():
    found = gather_findings([r for r in sweep(np.random.default_rng(1)) if not r.n_noisy])
    assert "price nothing" in found.to_dict()["answers"][0]
    assert any("nothing prices a noisy one" in p for p in found.analyses[0].problems)
