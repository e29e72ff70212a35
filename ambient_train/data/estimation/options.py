"""What `data noise` can be asked for. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_theory.shared.options import Checked, option


@dataclass(frozen=True, kw_only=True)
class NoiseOptions(Checked):
    """Which images are looked at."""

    max_images: int | None = option(
        None, "At most this many images, drawn by a hash of their place", at_least=1, shown_default="all"
    )
