"""Sets of images that need no path. One file each: its name is the set's, `MEMBER(argument)` opens it.

`argument` is what follows a colon in the name, `photos32:stride=4`, or "".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.data.source import Source

BUILT_IN: Registry[Callable[[str], Source]] = Registry(__name__, "built-in set")


def no_option(name: str, argument: str) -> None:
    """Raise UsageError where something follows the name of a set that takes no option."""
    if argument:
        raise UsageError(f"{name}:{argument}: {name} takes no option after the colon")
