"""`compare`, `price` and `budget` in the page of options: `python -m ambient_theory.compare.commands.document`."""

from __future__ import annotations

from ambient_theory.compare.commands.settings import PageOptions, PriceOptions, Purse, Scores
from ambient_theory.shared.options import options_table

SECTIONS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("Which scores", "`ambient compare`, `ambient price` and `ambient budget`.", (Scores,)),
    ("The page", "`ambient compare`.", (PageOptions,)),
    ("The price", "`ambient price`.", (PriceOptions,)),
    ("The purchase", "`ambient budget`.", (Purse,)),
)


def options_sections() -> str:
    """Markdown with one table a section."""
    parts = [
        f"\n## {title}\n\n{where[:-1]}; not in files.\n\n{options_table(*classes, files=False)}"
        for title, where, classes in SECTIONS
    ]
    return "".join(parts)


if __name__ == "__main__":
    print(options_sections(), end="")
