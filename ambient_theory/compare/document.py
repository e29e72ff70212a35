"""The page of the options of `compare`, `price` and `budget`: `python -m ambient_theory.compare.document`."""

from __future__ import annotations

from ambient_theory.compare.settings import PageOptions, PriceOptions, Purse, Scores
from ambient_theory.shared.options import options_table

SECTIONS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("Which scores", "`ambient compare`, `ambient price` and `ambient budget`.", (Scores,)),
    ("The page", "`ambient compare`.", (PageOptions,)),
    ("The price", "`ambient price`.", (PriceOptions,)),
    ("The purchase", "`ambient budget`.", (Purse,)),
)


def options_page() -> str:
    """Markdown with one table a section."""
    parts = ["# Options of `compare`, `price` and `budget`\n", "Made by `make docs` from the code.\n"]
    for title, where, classes in SECTIONS:
        parts += [f"## {title}\n", f"{where}\n", options_table(*classes, files=False)]
    return "\n".join(parts)


if __name__ == "__main__":
    print(options_page(), end="")
