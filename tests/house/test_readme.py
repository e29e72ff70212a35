"""README.md and the pages for newcomers say what is so: numbers, commands, constants of the code, the citation."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from experiment_script import experiment

import ambient_theory
import cli
from ambient_theory.compare.by_level.findings import analyse_levels
from ambient_theory.compare.cells.grouping import read_shipped
from ambient_train.evaluation.denoising import LEVELS, QUICK_IMAGES, QUICK_LEVELS
from ambient_train.evaluation.floors import FEW_REFERENCE, FEWEST
from ambient_train.evaluation.memorisation import ALPHA
from ambient_train.runs.heldout import FIRST_POINT, POINTS_PER_DOUBLING
from ambient_train.settings.evaluation import LEAST_IMAGES

ROOT = Path(__file__).parents[2]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return experiment("readme")


def test_the_numbers_on_estimated_noise_are_those_that_were_measured() -> None:
    measured = experiment("estimation")
    page, found = text_of("docs/data.md"), json.loads(measured.OUT.read_text(encoding="utf-8"))
    assert measured.MARKED.marked(page, measured.tables(found)) == page
    assert [(r["set"], r["sigma"]) for r in found["rows"]] == [(n, s) for n in measured.SETS for s in measured.SIGMAS]
    found["rows"][0]["covered"] -= 1
    assert measured.MARKED.marked(page, measured.tables(found)) != page


def test_the_numbers_of_the_readme_are_those_of_the_findings(script: ModuleType) -> None:
    readme, pages = text_of("README.md"), [text_of("docs/findings.md"), text_of("docs/methods.md")]
    assert script.MARKED.marked(readme, script.numbers(*pages)) == readme
    other = pages[0].replace("| 2.", "| 3.").replace("| 0.", "| 0.9")
    assert script.MARKED.marked(readme, script.numbers(other, pages[1])) != readme


@pytest.mark.slow
def test_the_picture_shows_the_worths_of_the_shipped_records(script: ModuleType) -> None:
    found, _ = analyse_levels(read_shipped().records)
    chosen = next(f for f in found if f.table.key.rule == script.RULE and f.priced)
    drawn = script.picture(chosen).decode()
    assert drawn == script.picture(chosen).decode()
    for picture in (drawn, script.PICTURE.read_text(encoding="utf-8")):
        assert all(f"noise σ {sigma:g}" in picture for sigma in chosen.priced)


def commands_in(text: str) -> list[list[str]]:
    """The words of every `ambient` line in the blocks of code of a page."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("ambient ")]


def missing(words: list[str]) -> list[str]:
    """The flags of a command line that the command does not have."""
    found: Any = cli.imported(words[0])
    if len(words) > 1 and words[1] in getattr(found, "commands", {}):
        found = found.commands[words[1]]
    known = {flag for parameter in found.params for flag in parameter.opts}
    return [word for word in words if word.startswith("--") and word not in known]


@pytest.mark.parametrize("page", ["README.md", "docs/start.md", "docs/worth.md", "docs/scores.md"])
def test_every_command_that_a_newcomer_reads_exists_with_its_flags(page: str) -> None:
    lines = commands_in(text_of(page)) + [
        shlex.split(code)[1:] for code in re.findall(r"`(ambient [a-z][^`]*)`", text_of(page)) if "COMMAND" not in code
    ]
    assert lines
    assert [line for line in lines if missing(line)] == []
    assert missing(["worth", "photos/", "--tiem", "3m"]) == ["--tiem"]


def test_the_first_command_on_own_data_has_an_end() -> None:
    name, _, *rest = commands_in(text_of("README.md"))[0]
    assert name == "worth"
    assert re.fullmatch(r"\d+m", rest[rest.index("--time") + 1])


def test_the_two_commands_are_there() -> None:
    assert all(f"make {name} " in text_of("README.md") for name in ("demo", "test"))
    assert all(re.search(rf"^{name}: ", text_of("Makefile"), re.MULTILINE) for name in ("demo", "test", "site"))


def test_the_page_on_scores_has_the_numbers_of_the_code() -> None:
    page = " ".join(text_of("docs/scores.md").split())
    assert FEWEST == LEAST_IMAGES
    assert POINTS_PER_DOUBLING == 2
    for words in (
        f"Below {FEW_REFERENCE} reference images",
        f"Fewer than {FEWEST} generated images",
        f"p-values below {ALPHA:g}",
        f"at {LEVELS} levels s",
        f"at most {QUICK_IMAGES} of them, {QUICK_LEVELS} levels",
        f"Twice each time the number of images trained on doubles, from {FIRST_POINT:,} on",
    ):
        assert words in page


def test_the_citation_is_complete() -> None:
    """Fields that the schema 1.2.0 of the citation file format requires, and those that say which version this is."""
    cited = yaml.safe_load(text_of("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == ambient_theory.__version__
    assert cited["license"] == "MIT"
    assert cited["type"] == "software"
    for work in (cited, *cited["references"]):
        assert work["title"]
        assert all("name" in author or "family-names" in author for author in work["authors"])
    assert "2411.02780" in cited["references"][0]["url"]
    known = {"cff-version", "message", "title", "type", "abstract", "authors", "version", "license", "keywords"}
    assert set(cited) == known | {"references"}


def test_the_image_of_docker_installs_this_package() -> None:
    lines = text_of("Dockerfile")
    assert 'ENTRYPOINT ["ambient"]' in lines
    left = {line.removeprefix("!") for line in text_of(".dockerignore").splitlines() if line.startswith("!")}
    assert {"ambient_theory", "ambient_train", "cli.py", "pyproject.toml", "README.md", "LICENSE"} == left
    assert all((ROOT / name).exists() for name in left)
