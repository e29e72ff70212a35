"""`worth` as a function: the question of the whole project, asked of one's own images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ambient_theory.shared.advice import Adviser
from ambient_theory.shared.options import from_mapping
from ambient_train.pricing.answer import WorthAnswer
from ambient_train.pricing.run import Plan
from ambient_train.pricing.run import worth as ask
from ambient_train.settings.worth import WorthOptions


def worth(
    data: str | os.PathLike[str],
    *,
    sigma: float | Sequence[float],
    adviser: Adviser,
    time: float | str = "1h",
    outdir: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] = "runs",
    dry_run: bool = False,
    quiet: bool = True,
    **settings: Any,
) -> WorthAnswer | Plan:
    """What is a noisy image worth in these images? `ambient worth`: trains small networks until the time is up.

    sigma: noise of the noisy images, in units of [-1, 1], at the size that the images have. adviser: what chooses
    trainings and prices them, `ambient_theory.compare.adviser()`. time: seconds, or text such as `45m`. settings:
    `noise`, `resolution`, `price_clean`, `price_noisy`, `budget`, `workers`, `device`. The same call again continues.
    Raises UsageError, DataError, StoppedError.
    """
    given = {"sigma": _several(sigma), "time_s": time, **settings}
    if "resolution" in settings:
        given["resolution"] = _several(settings["resolution"])
    options = from_mapping(WorthOptions, given, where="option")
    where = None if outdir is None else Path(outdir)
    return ask(os.fspath(data), options, adviser, outdir=where, runs=Path(runs), dry_run=dry_run, quiet=quiet)


def _several(value: Any) -> tuple[Any, ...]:
    """The members of a list or an array, and of anything else the thing itself."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
