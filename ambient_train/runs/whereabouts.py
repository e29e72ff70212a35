"""Where a run's data are now: where its config says, where they were read from, or at a new place that is named.

A run knows its images by their hash, not by their path, so a place counts as theirs where the images there have it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.builtin import BUILT_IN
from ambient_train.data.place import is_there
from ambient_train.runs.resolve import load_training_images
from ambient_train.settings.config import TrainConfig


def with_data_found(config: TrainConfig, described: Mapping[str, Any] | None) -> TrainConfig:
    """The config with its data where they are now, without reading them.

    described: what the manifest says of the data (`Job.describe_data`), which keeps the absolute path: a relative one
    fails from another folder.
    """
    stored = (described or {}).get("path")
    if not is_there(config.data) and stored and is_there(stored):
        return replace(config, data=stored)
    return config


def with_data_at(config: TrainConfig, data: str, resolution: int | None) -> TrainConfig | None:
    """The config with `data` as the new place of the run's own images; None where other images are there.

    resolution: asked for beside it; another one than the run's asks for other images. What cannot be read as the
    run's images is none of them: whoever reads it as a source of its own will say what is wrong.
    """
    if resolution not in (None, config.resolution):
        return None
    moved = replace(config, data=data)
    try:
        source = load_training_images(moved.data, moved.resolution, moved.holdout, moved.max_images)
    except (UsageError, DataError):
        return None
    return moved if source.content_hash[:16] == config.data_hash else None


@contextlib.contextmanager
def saying_how_to_move(config: TrainConfig) -> Iterator[None]:
    """Where the run's data are not where they were, a DataError says how to name their new place."""
    try:
        yield
    except DataError as error:
        if config.data in BUILT_IN or is_there(config.data):
            raise
        raise DataError(f"{error}; if the run's data moved, give --data with their new place") from None
