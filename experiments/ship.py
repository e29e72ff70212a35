"""Makes the records that `ambient compare` answers from, out of the committed results.

    python experiments/ship.py            # writes ambient_theory/compare/shipped/
    python experiments/ship.py --check    # says whether what is there is what would be written

The rule: scores against held-out images only, and a score that an earlier grid ships is not shipped twice (the two
grids share trainings). Lines are copied as they stand. `published.jsonl` (typed from print) and `simulate_gmm.jsonl`
(the records of `ambient simulate-gmm`) are kept in the shipped directory itself and nowhere else.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

from ambient_theory.shared.files import atomic_write_bytes
from ambient_theory.shared.records import Record

ROOT = Path(__file__).parents[1]
RESULTS, SHIPPED = ROOT / "experiments/results", ROOT / "ambient_theory/compare/shipped"
#: In this order: of a score that both hold, the first one's line is shipped.
GRIDS = ("price_fashion.jsonl", "table1_fashion.jsonl", "evidence_fashion.jsonl.gz")
KEPT = ("published.jsonl", "simulate_gmm.jsonl")


def measured(record: Record) -> tuple[object, ...]:
    """What was measured, whatever grid asked for it."""
    evaluation = json.dumps(record.evaluation, sort_keys=True, default=dict)
    what = (record.metric, record.extractor, record.reference, record.level)
    return record.config_hash, record.duration_nimg, record.checkpoint, evaluation, *what


def unpacked(name: str, data: bytes) -> bytes:
    """The text of a file of that name: two compressors may pack the same text otherwise."""
    return gzip.decompress(data) if name.endswith(".gz") else data


def shipped_files(results: Path = RESULTS) -> dict[str, bytes]:
    """The bytes of every file that is made, by name."""
    seen: set[tuple[object, ...]] = set()
    files = {}
    for name in GRIDS:
        lines = []
        for line in unpacked(name, (results / name).read_bytes()).decode().splitlines():
            record = Record.from_dict(json.loads(line))
            if record.reference == "heldout-clean" and measured(record) not in seen:
                lines.append(line)
                seen.add(measured(record))
        text = "".join(line + "\n" for line in lines).encode()
        files[name] = gzip.compress(text, mtime=0) if name.endswith(".gz") else text
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for name, data in shipped_files().items():
        path = SHIPPED / name
        same = path.exists() and unpacked(name, path.read_bytes()) == unpacked(name, data)
        if not same and not options.check:
            atomic_write_bytes(path, data)
        print(f"{path.relative_to(ROOT)}: {'up to date' if same else 'differs' if options.check else 'written'}")
        if options.check and not same:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
