"""Tables of interchangeable members, one file each: losses, draws, metrics, extractors, noise models.

A member is a module of the table's package. Its name is the file's name with hyphens for underscores (`sigma_first.py`
is `sigma-first`), its description the first line of the module's docstring, and what it offers the module's constant
`MEMBER`. Names and descriptions are read without importing a member, so that a command line can list and check them
before anything heavy is loaded. Files that begin with an underscore are no members. A new member touches its own file
and nothing else.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

from ambient_theory.shared.errors import UsageError

T = TypeVar("T")
QUOTES = '"""'


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The members of `package`. kind: what one is called in messages, e.g. `weight`."""

    package: str
    kind: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all members, in alphabetical order."""
        return tuple(sorted(self._files()))

    @property
    def descriptions(self) -> Mapping[str, str]:
        """Name -> first line of the member's docstring, without the full stop."""
        return {name: _first_line(self._files()[name]) for name in self.names}

    def check(self, name: object) -> str:
        """The name, if there is such a member. Raises UsageError listing the members."""
        if name not in self.names:
            raise UsageError(f"{self.kind} {name!r} is not one of {', '.join(self.names)}")
        return str(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> T:
        """The member of that name; its module is imported now. Raises UsageError for an unknown name."""
        imported = sys.modules.get(f"{self.package}.{str(name).replace('-', '_')}")
        if "_" not in str(name) and imported is not None and hasattr(imported, "MEMBER"):  # no look at the folder
            return cast(T, imported.MEMBER)
        module = importlib.import_module(f"{self.package}.{self.check(name).replace('-', '_')}")
        return cast(T, module.MEMBER)

    def _files(self) -> dict[str, Path]:
        places = importlib.import_module(self.package).__path__
        found = (
            (module.name, Path(getattr(module.module_finder, "path", ""))) for module in pkgutil.iter_modules(places)
        )
        return {name.replace("_", "-"): folder / f"{name}.py" for name, folder in found if not name.startswith("_")}


def _first_line(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if text.startswith(QUOTES):  # as all of ours do; parsing every member would cost the start of each command
        return text.removeprefix(QUOTES).split("\n")[0].split(QUOTES)[0].rstrip(".")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0].rstrip(".")
