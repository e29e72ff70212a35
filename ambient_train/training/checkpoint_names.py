"""Where the checkpoints of a run are, by their image counts; nothing heavy is imported for it."""

from __future__ import annotations

from pathlib import Path


def directory_name(nimg: int) -> str:
    """Name of the checkpoint after `nimg` images; names sort like numbers."""
    return f"{nimg:012d}"


def available(parent: Path) -> list[Path]:
    """Checkpoint directories (whole or not), oldest first."""
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and p.name.isdigit())
