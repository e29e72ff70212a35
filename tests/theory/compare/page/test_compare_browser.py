"""The report page in headless Chromium: on a desk, on a phone, in the dark, by keyboard and on paper."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Tab, installed, tab
from PIL import Image

from ambient_theory.compare.cells.grouping import read_shipped
from ambient_theory.compare.page.build import build_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(installed() is None, reason="no Chromium on this machine"),
]

CONTRAST = """(() => {
  const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const l = c.slice(0, 3).map(x => x / 255)
    .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
    return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
  const behind = e => e ? over(rgba(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255, 1];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node; node = walk.nextNode();) {
    const e = node.parentElement;
    if (!node.data.trim() || e.closest('style')) continue;
    const style = getComputedStyle(e), back = behind(e);
    const front = over(rgba(e.closest('svg') ? style.fill : style.color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), node.data.trim().slice(0, 60)]);
  }
  return found; })()"""
"""Contrast of every text on the page (WCAG 2.2), that of the figures by their fill, with the text."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the shipped records, with one grid of samples."""
    folder = tmp_path_factory.mktemp("page")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a-grid.png")
    return build_report(read_shipped().records, folder / "report", gallery=[folder / "a-grid.png"]).page


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    with tab() as opened:
        yield opened


def test_the_page_complains_of_nothing_and_asks_for_nothing_but_itself(page: Path, browser: Tab) -> None:
    browser.open(page)
    assert browser.errors == []
    assert set(browser.requests()) <= {page.resolve().as_uri(), *browser.ask("[...document.images].map(i => i.src)")}


def test_a_page_with_a_broken_picture_and_a_broken_script_is_seen(tmp_path: Path, browser: Tab) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<!doctype html><img src=none.png><script>throw new Error('no')</script>")
    browser.open(broken)
    assert len(browser.errors) >= 2
    assert browser.ask("document.images[0].naturalWidth") == 0


def test_every_figure_is_drawn_and_says_what_it_is(page: Path, browser: Tab) -> None:
    browser.open(page)
    files = {p.stem for p in (page.parent / "figures").glob("*.svg")}
    assert {f"figure-{name}" for name in files} == set(
        browser.ask("[...document.querySelectorAll('figure[id]')].map(f => f.id)")
    )
    sizes = browser.ask(
        "[...document.querySelectorAll('figure svg')].map(s => [s.getBoundingClientRect().width, "
        "s.getBoundingClientRect().height, s.querySelectorAll('path').length])"
    )
    assert len(sizes) == len(files) > 15
    assert all(width > 300 and height > 150 and paths > 10 for width, height, paths in sizes)
    named = (
        "e => e.getAttribute('aria-label') && document.getElementById(e.getAttribute('aria-describedby')).textContent"
    )
    assert browser.ask(f"[...document.querySelectorAll('svg')].every({named})")
    assert browser.ask("[...document.images].every(i => i.naturalWidth > 0 && i.alt)")
    assert browser.ask("document.images.length") == 1


def test_every_link_leads_somewhere_and_no_name_is_given_twice(page: Path, browser: Tab) -> None:
    browser.open(page)
    links = browser.ask("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    names = browser.ask("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert len(anchors) > 8
    assert anchors <= set(names)
    assert all((page.parent / link).is_file() for link in links if not link.startswith("#"))
    pointed = browser.ask(
        "['aria-labelledby', 'aria-describedby'].flatMap(a => "
        "[...document.querySelectorAll(`[${a}]`)].map(e => e.getAttribute(a)))"
    )
    assert set(pointed) <= set(names)


def test_a_phone_never_scrolls_the_page_sideways_and_figures_stay_legible(page: Path, browser: Tab) -> None:
    browser.open(page, width=360, height=740)
    browser.ask("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.ask("document.documentElement.scrollWidth") == 360
    smallest = browser.ask(
        "Math.min(...[...document.querySelectorAll('figure svg')].map(s => 9.5 * s.getScreenCTM().a))"
    )
    assert smallest >= 9.5  # CSS pixels of the ordinary text of a figure


def test_what_is_wider_than_a_phone_is_reached_by_keyboard(page: Path, browser: Tab) -> None:
    browser.open(page, width=360, height=740)
    wide = browser.ask(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && e.scrollWidth > e.clientWidth + 1 "
        "&& getComputedStyle(e).overflowX === 'auto').map(e => e.tabIndex)"
    )
    assert len(wide) > 10
    assert set(wide) == {0}


def test_the_first_stop_of_the_keyboard_skips_to_the_figures_and_every_stop_is_seen(page: Path, browser: Tab) -> None:
    browser.open(page)
    browser.press("Tab", 9)
    assert browser.ask("document.activeElement.getAttribute('href')") == "#main"
    assert browser.ask("document.activeElement.getBoundingClientRect().top") >= 0
    seen = []
    for _ in range(25):
        browser.press("Tab", 9)
        outline = "(e => [e.tagName, getComputedStyle(e).outlineStyle, parseFloat(getComputedStyle(e).outlineWidth)])"
        seen.append(browser.ask(f"{outline}(document.activeElement)"))
    assert {tag for tag, _, _ in seen} >= {"A", "SUMMARY", "DIV"}
    assert all(style == "solid" and width >= 2 for _, style, width in seen)


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_what_is_behind_it(page: Path, browser: Tab, dark: bool) -> None:
    browser.open(page, dark=dark)
    found = browser.ask(CONTRAST)
    assert len(found) > 500
    assert [text for contrast, text in found if contrast < 4.5] == []
    black = browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(17, 24, 39)"
    assert black == dark


def test_paper_is_light_and_shows_what_is_folded(page: Path, browser: Tab) -> None:
    browser.open(page, dark=True)
    folded = "[...document.querySelectorAll('details table')].map(t => t.checkVisibility())"
    assert not any(browser.ask(folded))
    browser.media(dark=True, medium="print")
    assert all(browser.ask(folded))
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.pdf().startswith(b"%PDF")


def test_the_page_answers_in_its_order(page: Path, browser: Tab) -> None:
    browser.open(page)
    order = browser.ask("[...document.querySelectorAll('.answer, section[id]')].map(e => e.id || 'answer')")
    kinds = [name.split("-")[0] for name in order]
    assert kinds[:5] == ["answer", "goods", "scores", "price", "buy"]
    assert kinds[-1] == "method"
    found = json.loads((page.parent / "fit.json").read_text())["answers"]
    shown = browser.ask("[...document.querySelectorAll('header p, header li')].map(e => e.textContent)")
    assert [answer for answer in found if answer not in shown] == []
