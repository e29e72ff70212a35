"""What the fields of a record may hold, and of `extra` and `method` those that somebody reads.

Whatever else a record says is kept as it is. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ambient_theory.shared.errors import DataError
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
LARGEST = 1e100
"""Of every measured number: sums of squares of such numbers are finite."""
METHOD: Mapping[str, Kind] = {"told_sigma": NOT_NEGATIVE}


def check_fields(record: Any) -> None:
    """Raise DataError for the first field of a record whose value is of another kind; null where nothing may be."""
    for name, kind in REQUIRED.items():
        check_kind(name, getattr(record, name), kind)
    check_kinds({name: getattr(record, name) for name in OPTIONAL}, OPTIONAL)
    check_kinds(record.extra, EXTRA, "extra.")
    for name, number in _measured(record):
        if abs(number) > LARGEST:
            raise DataError(f"{name} {number:g} is larger than any measured number ({LARGEST:g})")
    if isinstance(record.method, Mapping):
        check_kinds(record.method, {name: METHOD.get(name, SCALAR) for name in record.method}, "method.")


def _measured(record: Any) -> Iterator[tuple[str, float]]:
    """Real numbers of a record, with their names."""
    for name in ("value", "stderr", "level", "sigma_n"):
        value = getattr(record, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None:
                yield name, number
    for name in ("floor", "memorisation_floor", "low", "high", "interval95"):
        value = record.extra.get(name)
        for number in value if isinstance(value, list | tuple) else (value,):
            if number is not None:
                yield f"extra.{name}", number
