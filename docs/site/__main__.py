"""The documentation as a site: `python docs/site OUT`. A warning of Sphinx is an error."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pages import write_pages
from sphinx.cmd.build import build_main


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the site")
    out = parser.parse_args().out
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        parser.error(f"{out} is not empty and holds no site")
    shutil.rmtree(out, ignore_errors=True)  # so that a page which is gone does not stay
    with tempfile.TemporaryDirectory() as source:
        write_pages(Path(source))
        here = str(Path(__file__).parent)
        return build_main(["-W", "--keep-going", "-q", "-c", here, "-d", f"{source}/.doctrees", source, str(out)])


if __name__ == "__main__":
    sys.exit(main())
