"""A made-up member of a table: one file in a folder of its own, and nothing else."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ambient_theory.shared.registry import Registry


@contextlib.contextmanager
def member(table: Registry[Any], name: str, source: str, folder: Path) -> Iterator[None]:
    """Inside, `table` has the member `name` whose file is `source`; the package itself is not written to."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    package = importlib.import_module(table.package)
    package.__path__.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        package.__path__.remove(str(folder))
        sys.modules.pop(f"{table.package}.{module}", None)
        vars(package).pop(module, None)
