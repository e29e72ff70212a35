"""What the fields of a record may hold, and of `extra` and `method` those that somebody reads.

Whatever else a record says is kept as it is. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ambient_theory.shared.kinds import (
    COUNT,
    NOT_NEGATIVE,
    NUMBER,
    OBJECT,
    PAIR,
    POSITIVE,
    SCALAR,
    TEXT,
    WHOLE,
    Kind,
    check_kind,
    check_kinds,
    is_number,
)

REQUIRED: Mapping[str, Kind] = {
    **dict.fromkeys(("source", "dataset", "metric", "extractor", "reference", "config_hash"), TEXT),
    **dict.fromkeys(("n_clean", "n_noisy", "n_eval"), COUNT),
    "value": NUMBER,
    **dict.fromkeys(("evaluation", "versions", "extra"), OBJECT),
}
OPTIONAL: Mapping[str, Kind] = {
    "sigma_n": (
        lambda v: all(is_number(s, 0) for s in (v if isinstance(v, tuple) else (v,))),
        "must be finite and >= 0",
    ),
    **dict.fromkeys(("stderr", "level", "wall_s"), NOT_NEGATIVE),
    "duration_nimg": COUNT,
    "seed": WHOLE,
    **dict.fromkeys(("cell", "regime"), TEXT),
    "method": (lambda v: isinstance(v, Mapping | str), "must be an object or a string"),
}
EXTRA: Mapping[str, Kind] = {
    **dict.fromkeys(("floor", "memorisation_floor", "low", "high"), NUMBER),
    **dict.fromkeys(("n_d", "n_l"), POSITIVE),
    **dict.fromkeys(("nimg", "n_reference", "features", "dim", "k", "d"), COUNT),
    **dict.fromkeys(("images", "grade", "family", "mix", "estimator", "weights"), TEXT),
    "interval95": PAIR,
}
METHOD: Mapping[str, Kind] = {"told_sigma": NOT_NEGATIVE}


def check_fields(record: Any) -> None:
    """Raise DataError for the first field of a record whose value is of another kind; null where nothing may be."""
    for name, kind in REQUIRED.items():
        check_kind(name, getattr(record, name), kind)
    check_kinds({name: getattr(record, name) for name in OPTIONAL}, OPTIONAL)
    check_kinds(record.extra, EXTRA, "extra.")
    if isinstance(record.method, Mapping):
        check_kinds(record.method, {name: METHOD.get(name, SCALAR) for name in record.method}, "method.")
