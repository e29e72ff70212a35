"""What readers that need an extra package share: its import, and the bound on one encoded image."""

from __future__ import annotations

import importlib
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.limits import MAX_MEMBER_BYTES


def import_extra(module: str, extra: str, what: str) -> Any:
    """The module, or a UsageError that names the extra to install for `what`."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{what} needs the package {module}: pip install 'ambient-worth[{extra}]'") from None


def bounded(value: Any, where: str) -> bytes:
    """Bytes of one encoded image. Raises DataError for anything else, and beyond MAX_MEMBER_BYTES."""
    if not isinstance(value, bytes) or not value:
        raise DataError(f"{where}: holds no encoded image")
    if len(value) > MAX_MEMBER_BYTES:
        raise DataError(f"{where}: {len(value):,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
    return value
