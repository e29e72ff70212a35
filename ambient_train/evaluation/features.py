"""Feature extractors by name, and those that fit the images when none is named."""

from __future__ import annotations

from ambient_theory.shared.errors import UsageError
from ambient_train.evaluation.extractors import TABLE
from ambient_train.evaluation.extractors._base import MAX_DIM, Device, Extractor, Features, Images

__all__ = ["MAX_DIM", "Extractor", "Features", "Images", "default_extractors", "get_extractor"]


def get_extractor(spec: str, *, device: Device = "cpu") -> Extractor:
    """The extractor of a member of the table, `name` or `name:PATH`.

    Raises UsageError for an unknown name, a path where none belongs or is missing, or an extractor whose package or
    weights are not there, saying what to do, and DataError if weights cannot be read.
    """
    name, colon, path = spec.partition(":")
    kind = TABLE[name]
    if colon and not path:
        raise UsageError(f"extractor {spec!r} names no file after the colon")
    if path and kind.path == "none":
        raise UsageError(f"extractor {name!r} takes no file: leave out {colon + path!r}")
    if not path and kind.path == "required":
        raise UsageError(f"extractor {name!r} needs a file: write {name}:PATH")
    return kind.build(path, device)


def default_extractors(channels: int, resolution: int) -> tuple[list[str], list[str]]:
    """Names of the extractors to use when none is asked for, and a sentence for each one that cannot be used.

    Those without a rank come first, and all of them that can be used are; of those with one, the first that can.
    Today: `pixels` where their covariance fits, and `smallcnn` for grey images, for colour `inception` if its weights
    are at hand, else `effnet-lite0` if that package is.
    """
    chosen: list[str] = []
    notes: list[str] = []
    kinds = {name: TABLE[name] for name in TABLE}
    fitting = {n: k for n, k in kinds.items() if k.default_channels is None or channels in k.default_channels}
    for name, kind in sorted(fitting.items(), key=lambda item: item[1].default_rank or 0):
        if reason := kind.unavailable(channels, resolution):
            notes.append(f"{name}: {reason}")
            continue
        chosen.append(name)
        if kind.default_rank is not None:
            break
    return chosen, notes
