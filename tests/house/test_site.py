"""The site of the documentation: built without a warning, every link is there, nothing fetched, nothing lost."""

from __future__ import annotations

import html
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
from chromium import installed

import ambient_theory
import ambient_train
import cli
from ambient_theory import bounds, compare
from ambient_theory.shared import errors

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"


class Page(HTMLParser):
    """What a page links to, what it loads, the anchors it has, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {k: v for k, v in attrs if v}
        self.anchors |= {found[k] for k in ("id", "name") if k in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        self.loaded += [found[k] for k in ("src", "data", "poster") if k in found]
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev", "search", "index"):
            self.loaded.append(found.get("href", ""))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    made = subprocess.run([sys.executable, str(SITE), str(out)], capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stdout + made.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> Mapping[Path, Page]:
    return {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}


def broken(pages: Mapping[Path, Page]) -> Iterator[str]:
    """Links to a file or an anchor that is not there."""
    for file, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                yield f"{file.name}: {link}"


def test_every_link_and_anchor_is_there(pages: Mapping[Path, Page], site: Path) -> None:
    assert len(pages) > 30
    assert list(broken(pages)) == []
    wrong = Page('<a href="docs/data.html#no-such-heading">x</a><img src="no.png"><a href="docs/no.html">y</a>')
    assert len(list(broken({**pages, site / "index.html": wrong}))) == 3


def test_nothing_is_fetched_from_elsewhere(pages: Mapping[Path, Page], site: Path) -> None:
    assert [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc] == []
    styles = "".join(f.read_text(encoding="utf-8") for f in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", styles) == []


def test_every_page_of_the_documentation_is_in_the_order_of_the_site(site: Path) -> None:
    home = Page((site / "index.html").read_text(encoding="utf-8"))
    for file in sorted((ROOT / "docs").glob("*.md")):
        assert f"docs/{file.stem}.html" in home.links, file.name


# one test for all commands and one for all modules: tests that are spread over processes build the site in each
def test_every_command_has_its_flags_with_the_words_of_its_help(pages: Mapping[Path, Page], site: Path) -> None:
    for name in cli.COMMANDS:
        text = pages[site / "commands" / f"{name}.html"].text
        command = cli.imported(name)
        members = getattr(command, "commands", {})
        for each in (*members.values(), *([command] if not members or command.invoke_without_command else [])):
            for parameter in (p for p in each.params if not p.hidden):
                assert all(flag in text for flag in parameter.opts), (name, parameter.opts)
                assert said(parameter.help) in text, name
            assert said(each.help.split("\n\n")[0]) in text, name
        assert said(command.help.split("\n\n")[0]) in text, name


def said(text: str | None) -> str:
    return " ".join((text or "").replace("`", "").split())


def public_objects(module: ModuleType) -> Iterator[object]:
    """A module, what it offers, and the methods of its classes."""
    yield module
    for each in (getattr(module, key) for key in dir(module) if not key.startswith("_")):
        if inspect.isclass(each) or (inspect.isfunction(each) and module is not errors):
            yield each
            methods = vars(each).items() if inspect.isclass(each) else ()
            yield from (v for k, v in methods if k[0] != "_" and (inspect.isfunction(v) or isinstance(v, property)))


def test_docstrings_lose_nothing_on_their_way(pages: Mapping[Path, Page], site: Path) -> None:
    """Shapes, powers, subscripts and code of every public docstring stand on the page as they were written."""
    for module in (ambient_train, ambient_theory, bounds, compare, errors):
        text = pages[site / "api" / f"{module.__name__}.html"].text
        for each in public_objects(module):
            for word in re.sub(r"`|^ *-+$", "", each.__doc__ or "", flags=re.MULTILINE).split():
                assert word.rstrip(":") in text, (each, word)


def opened(page: Path, *flags: str) -> str:
    """The document that a browser makes of a page that is opened as a file, after its scripts have run."""
    browser = installed() or pytest.skip("no Chromium is installed")
    always = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
    own = f"--user-data-dir={page.parent / '.browser'}"
    made = subprocess.run([browser, *always, own, *flags, page.as_uri()], capture_output=True, text=True, timeout=280)
    assert "CONSOLE" not in made.stderr, made.stderr
    return made.stdout


HARNESS = """<body><script>
const wrong = []
async function look() {
  for (const width of [375, 1400]) for (const page of PAGES) {
    const frame = Object.assign(document.createElement("iframe"), { src: page, style: `width: ${width}px` })
    document.body.append(frame)
    await new Promise(done => frame.onload = done)
    const found = frame.contentDocument
    if (found.documentElement.scrollWidth > width) wrong.push(`${page} is wider than ${width}`)
    for (const image of found.images) if (!image.naturalWidth) wrong.push(`${page}: no picture ${image.src}`)
    frame.remove()
  }
  document.body.innerHTML = `<pre>seen PAGES.length, wrong: ${wrong.join()}.</pre>`
}
look()
</script>"""


@pytest.mark.browser
def test_pages_fit_phones_and_wide_screens_with_all_pictures(pages: Mapping[Path, Page], tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<div style="width: 900px">wide</div><img src="none.png">', encoding="utf-8")
    for files, end in ((pages, "wrong: ."), ([bad], f"wrong: {bad.as_uri()} is wider than 375,")):
        harness = tmp_path / "harness.html"
        listed = json.dumps([file.as_uri() for file in files])
        harness.write_text(HARNESS.replace("PAGES.length", str(len(files))).replace("PAGES", listed), encoding="utf-8")
        seen = opened(harness, "--allow-file-access-from-files", "--virtual-time-budget=120000")
        assert f"seen {len(files)}, {end}" in seen


@pytest.mark.browser
def test_the_search_works_in_pages_that_are_opened_as_files(site: Path, tmp_path: Path) -> None:
    page = tmp_path / "to_search.html"
    target = (site / "search.html").as_uri() + "?q=memorisation"
    page.write_text(f'<script>location.replace("{target}")</script>', encoding="utf-8")
    found = Page(opened(page, "--virtual-time-budget=15000"))
    assert any(link.startswith("docs/scores.html") for link in found.links)
    assert "matching the search query" in found.text


def test_files_that_pages_link_to_are_shown(site: Path) -> None:
    shown = html.unescape((site / "examples" / "train_and_look.py.html").read_text(encoding="utf-8"))
    assert "of which nine in ten are noisy" in Page(shown).text


def test_docstrings_become_what_they_say() -> None:
    sys.path.insert(0, str(SITE))
    try:
        from docstrings import as_rst
    finally:
        sys.path.remove(str(SITE))
    text = (
        "What it is.\n\n    y = x_0 + s z\n\nn, m: counts, `[n]`. s_: *not* emphasis.\nReturns it. Raises UsageError."
    )
    assert as_rst(text, {"n", "m", "s_"}) == (
        "What it is.\n\n.. code-block:: text\n\n   y = x_0 + s z\n\n"
        "* ``n, m``: counts, ``[n]``.\n* ``s_``: \\*not\\* emphasis.\n\nReturns it. Raises UsageError.\n"
    )
