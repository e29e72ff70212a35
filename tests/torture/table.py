"""The result of the campaign on files as Markdown, for docs/reliability.md: `python tests/torture/table.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[2] / "experiments" / "torture_files.json"


def sentence(result: Mapping[str, Any]) -> str:
    """What became of all inputs."""
    refused, read, partly = (result["counts"].get(kind, 0) for kind in ("refused", "read", "skipped"))
    return (
        f"Of {result['inputs']:,} inputs of {len(result['readers'])} readers {refused:,} ended in a sentence that "
        f"names the file, {read:,} were read, of {partly:,} a part was left out and named; faults: "
        f"{result['faults']}; at most {result['slowest_s']:g} s and {result['most_memory_mb']:,} MB."
    )


def rows(result: Mapping[str, Any]) -> list[str]:
    """A row a reader."""
    found = ["| reader | inputs | a sentence | read | in part | faults | most s | most MB |", "|---|" + "---:|" * 7]
    for name, one in sorted(result["readers"].items()):
        counts = [one["counts"].get(kind, 0) for kind in ("refused", "read", "skipped")]
        numbers = [one["inputs"], *counts, len(one["faults"])]
        cells = [name, *(f"{n:,}" for n in numbers), f"{one['slowest_s']:g}", f"{one['most_memory_mb']:,}"]
        found.append(f"| {' | '.join(cells)} |")
    return found


if __name__ == "__main__":
    stored = json.loads(RESULT.read_text())
    print(sentence(stored), *rows(stored), sep="\n")
