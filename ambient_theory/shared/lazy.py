"""Names of a package that are imported when they are first used, so that `import` of the package costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package. places: public name -> `module:name`, or `module:` for a module."""

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, member = places[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, member) if member else found

    return get, lambda: sorted(places)
