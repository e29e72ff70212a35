"""`make torture`: what the product survives. `kills`: harmed trainings. `commands`: every command that takes a while,
harmed. `files`: damaged files of every kind that is read.

Each prints its counts as JSON, and leaves with exit code 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))


def _kills(options: argparse.Namespace) -> bool:
    import kills

    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    result = kills.torture(options.count, options.seed, folder)
    _written(result, options.out)
    lost = result["counts"].get("lost", 0) + result["counts"].get("unexpected errors", 0)
    if not lost:
        shutil.rmtree(folder)
    return not lost


def _commands(options: argparse.Namespace) -> bool:
    import commands

    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    result = commands.torture(options.count, options.seed, options.out, folder, say, options.only)
    print(json.dumps(result, indent=1))
    if not result["faults"]:
        shutil.rmtree(folder)
    return not result["faults"]


def _files(options: argparse.Namespace) -> bool:
    import files

    if options.case is not None:
        if options.only is None:
            raise SystemExit("--case is one of a reader: name it with --only")
        found = files.one_case(options.seed, options.only, options.case)
        print(json.dumps(found, indent=1))
        return found["outcome"] in files.GOOD
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    result = files.torture(options.count, options.seed, options.out, say, options.only)
    _written(result, options.out)
    return not result["faults"]


def _written(result: dict[str, object], out: Path | None) -> None:
    text = json.dumps(result, indent=1)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    campaigns = parser.add_subparsers(required=True)
    for name, action, count, what in (
        ("kills", _kills, 200, "kills to reach"),
        ("commands", _commands, 1000, "kills to reach; an unfinished campaign in --out is continued"),
        ("files", _files, 100_000, "files to damage, over all readers; an unfinished campaign in --out is continued"),
    ):
        one = campaigns.add_parser(name)
        one.set_defaults(action=action)
        one.add_argument("--count", type=int, default=count, help=f"{what} (default {count:,})")
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--out", type=Path, help="also write the counts to this file")
        if name == "files":
            one.add_argument("--case", type=int, help="only this one of the reader --only, and what became of it")
        if name in ("commands", "files"):
            one.add_argument("--only", help="harm this command, or the files of this reader, alone")
    options = parser.parse_args()
    return 0 if options.action(options) else 1


if __name__ == "__main__":
    sys.exit(main())
