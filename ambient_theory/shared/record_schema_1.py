"""Records of schema `ambient.result/1`, read as those of schema 2.

What changed: `sigma` was the noise added to images, but the *total* standard deviation of a simulated sample; it is
now `sigma_n`, the noise beyond that of a clean sample, for both. Cell, regime and evaluation were entries of `extra`,
and so was the method of a published score. A training of schema 1 scored the weights it ended with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.kinds import is_number

SCHEMA = "ambient.result/1"
FIELDS = (
    "schema", "source", "dataset", "n_clean", "n_noisy", "sigma", "metric", "extractor", "value", "stderr", "n_eval",
    "seed", "config_hash", "reference", "duration_nimg", "versions", "wall_s", "extra",
)  # fmt: skip


def upgrade(d: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of schema 2 from those of schema 1, without `schema`. Raises DataError on a field that it had not."""
    if unknown := sorted(set(d) - set(FIELDS)):
        raise DataError(f"unknown field(s) {', '.join(unknown)} for {SCHEMA}")
    new = {name: value for name, value in d.items() if name not in ("schema", "sigma")}
    extra = new.get("extra", {})
    if not isinstance(extra, Mapping):
        raise DataError(f"extra must be an object, not {extra!r}")
    extra = dict(extra)
    source, sigma = d.get("source"), d.get("sigma")
    if source == "simulate" and isinstance(sigma, int | float) and is_number(sigma, 0):
        extra["sigma_total"] = sigma
        sigma = added_noise(sigma, clean_width(extra))
    new["sigma_n"] = sigma
    for name in ("cell", "regime", "evaluation"):
        if extra.get(name) is not None:
            new[name] = extra.pop(name)
    if source == "published" and "method" in extra:  # elsewhere it says how the standard error was found
        new["method"] = extra.pop("method")
    if source == "train":
        new["checkpoint"] = "last"
    new["extra"] = extra
    return new


def clean_width(extra: Mapping[str, Any]) -> float:
    """Total standard deviation of a clean simulated sample: the smaller of two levels, else the unit."""
    levels = extra.get("sigmas")
    if not isinstance(levels, list) or len(levels) < 2:
        return 1.0
    if not all(is_number(level, 0) for level in levels):
        raise DataError("extra.sigmas must be a list of finite numbers >= 0")
    return float(min(levels))


def added_noise(total: float, width: float) -> float | None:
    """`sqrt(total^2 - width^2)`; None where the total is below the width, so that the width was not this one."""
    if total < width:
        return None
    try:
        return math.sqrt(total**2 - width**2)
    except OverflowError:  # beside such a total the width is nothing
        return total
