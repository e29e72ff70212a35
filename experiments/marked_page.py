"""The lines of a page that a script writes, between marks that name it; the other lines are written by hand."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ambient_theory.shared.files import atomic_write_text

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class MarkedPage:
    """path: of the page. script: name of the file in experiments/ that writes its marked lines."""

    path: Path
    script: str

    def marked(self, page: str, made: str) -> str:
        """The text of the page with what is between its marks replaced by `made`."""
        begin, end = f"<!-- made by experiments/{self.script} -->\n", "<!-- end -->\n"
        return re.sub(f"{begin}.*?{end}", lambda _: begin + made + end, page, flags=re.DOTALL)

    def write(self, made: str) -> None:
        atomic_write_text(self.path, self.marked(self.path.read_text(encoding="utf-8"), made))

    def check(self, made: str) -> int:
        """Says whether the page has these lines, and returns 0 or 1."""
        page = self.path.read_text(encoding="utf-8")
        same = self.marked(page, made) == page
        print(f"{self.path.relative_to(ROOT)}: {'up to date' if same else 'differs'}")
        return 0 if same else 1


def measure_or_check(doc: str, page: MarkedPage, run: Callable[[], object], table: Callable[[], str]) -> None:
    """The command line of a script that measures what it lacks and writes its table: --check says whether the page has
    the table of what was measured, and leaves with 1 where it has not."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        raise SystemExit(page.check(table()))
    run()
    page.write(table())
