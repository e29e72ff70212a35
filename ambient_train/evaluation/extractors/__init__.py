"""Feature extractors, in whose features images are compared (`--extractor`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.evaluation.extractors._base import ExtractorKind

TABLE: Registry[ExtractorKind] = Registry("ambient_train.evaluation.extractors", "extractor")
