"""From records to groups of comparable cells.

Two scores can be compared only if they have the same data set, metric (and diffusion level, where it has one), feature
extractor, reference set, training duration, method, checkpoint rule, sampler and seed of the evaluation, and number of
generated images (a Frechet distance is biased by about 1/n_eval). Records that differ in one of these never meet in one
fit: they form groups of their own, and each group is analysed alone.

A *cell* is one training mixture (n_clean, n_noisy, sigma_n), measured with one or several training seeds. The seed of
training is the unit of replication: every standard error below comes from the scatter over seeds. One seed recorded
twice (a run and its sweep, or the same cell on two machines) counts once if the values agree within rounding; values
that do not agree are two experiments, and the cell is left out with a note that says what differs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from importlib import resources
from typing import Any

from ambient_theory.compare.cells.tables import Group, GroupKey, MeasuredCell, mixture_words
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import content_hash
from ambient_theory.shared.reading import Reading, read
from ambient_theory.shared.records import Record
from ambient_theory.shared.replicates import mean_of_known


def read_shipped() -> Reading:
    """The records that come with the project: every `*.jsonl` and `*.jsonl.gz` of the package's `shipped` directory."""
    with resources.as_file(resources.files("ambient_theory.compare") / "shipped") as directory:
        files = sorted(p for p in directory.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
        if not files:
            raise DataError(f"{directory}: no shipped records in this installation; name files of records")
        return read(*files)


def shipped_records() -> list[Record]:
    """The records of `read_shipped`."""
    return list(read_shipped().records)


def key_of(record: Record) -> GroupKey:
    """The group of a record."""
    return GroupKey(
        dataset=record.dataset,
        source=record.source,
        metric=record.metric,
        extractor=record.extractor,
        reference=record.reference,
        duration_nimg=record.duration_nimg or 0,
        n_eval=record.n_eval,
        level=level_of(record.level) if record.level else 0.0,
        method=method_words(record.method)
        if record.source == "train"
        else "",  # a printed table is read as it is printed
        checkpoint=record.checkpoint or "",
        evaluation=_evaluation(record.evaluation),
    )


def level_of(level: float) -> float:
    """A diffusion level to 12 digits. Levels at equal ratios are powers, whose last digits depend on the processor; the
    same level of two machines is one level."""
    return float(f"{level:.12g}")


def method_words(method: Mapping[str, Any] | str | None) -> str:
    """A method as text: its entries by name."""
    if method is None or isinstance(method, str):
        return method or ""
    return ", ".join(f"{name} {method[name]}" for name in sorted(method) if method[name] is not None)


def without_noise(method: Mapping[str, Any] | str | None) -> tuple[Mapping[str, Any] | str | None, str, str]:
    """(the method as it is for clean images, what was told of the noise of the noisy ones, which kind it is).

    `told_sigma` in a method: a control, how much of the worth of a noisy image comes from knowing its noise; empty for
    the truth. `noise`: its kind; empty for white. To clean images both are nothing, so that models of clean images
    alone serve all.
    """
    if not isinstance(method, Mapping):
        return method, "", ""
    told, kind = method.get("told_sigma"), method.get("noise")
    base = {name: value for name, value in method.items() if name not in ("told_sigma", "noise")}
    return base, "" if told is None else f"{told:g}", "" if kind is None else str(kind)


def _evaluation(settings: Mapping[str, Any]) -> str:
    """The settings that change a score, as `12 steps, seed 7 #hash6`; not n (a condition of its own) and not what else
    was scored beside it (extractors, metrics, memorisation) and when."""
    beside = ("n", "extractors", "metrics", "memorisation", "generate_at")
    counted = {name: value for name, value in settings.items() if name not in beside}
    if not counted:
        return ""
    sampler = counted.get("sampler")
    parts = [f"{sampler['steps']} steps"] if isinstance(sampler, Mapping) and "steps" in sampler else []
    if "seed" in counted:
        parts.append(f"seed {counted['seed']}")
    return f"{', '.join(parts)} #{content_hash(counted, 6)}".strip()


def _number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


#: Two values of one seed are the same measurement if they differ by less than this, relatively ...
SAME_VALUE = 1e-6
#: ... or by less than this share of the value's own standard error. The sums behind a score are taken in another order
#: on another machine, and a kernel distance near 0 has no digits left to agree in.
SAME_OF_STDERR = 1e-3


def same_value(a: Record, b: Record) -> bool:
    """Whether two records of one seed differ by rounding alone."""
    of_stderr = SAME_OF_STDERR * min(a.stderr or 0.0, b.stderr or 0.0)
    return abs(a.value - b.value) <= max(SAME_VALUE * max(abs(a.value), abs(b.value)), of_stderr)


def _differences(a: Record, b: Record) -> str:
    """In words: in what else two records of one seed differ, beside value and time taken."""
    out = []
    for name, x, y in ((f.name, getattr(a, f.name), getattr(b, f.name)) for f in fields(Record)):
        if x == y or name in ("value", "stderr", "wall_s", "cell", "regime", "extra"):
            continue
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            out += [f"{name} {k} {x.get(k)} / {y.get(k)}" for k in sorted({*x, *y}) if x.get(k) != y.get(k)]
        else:
            out.append(f"{name} {x} / {y}")
    return "; ".join(out)


def _cell(mixture: tuple[int, int, float | None], records: list[Record]) -> tuple[MeasuredCell | None, list[str]]:
    """One cell from the records of one mixture; repeated records count once, conflicting ones refuse the cell."""
    by_seed: dict[int | None, Record] = {}
    for record in records:
        first = by_seed.setdefault(record.seed, record)
        if not same_value(first, record):
            name = mixture_words(*mixture)
            differ = _differences(first, record)
            problem = (
                f"{name}: seed {record.seed} was recorded with two different values ({first.value:g}, "
                f"{record.value:g}{'; they differ in ' + differ if differ else ', all else equal'}), so two "
                "experiments are mixed; the cell is left out"
            )
            return None, [problem]
    chosen = list(by_seed.values())
    cell = MeasuredCell(
        *mixture,
        seeds=tuple(by_seed),
        values=tuple(record.value for record in chosen),
        regime=_joined(record.regime for record in records),
        grid_name=_joined(record.cell for record in records),
        floor=mean_of_known(_number(r.extra.get("floor")) for r in chosen),
        memorisation_floor=mean_of_known(_number(r.extra.get("memorisation_floor")) for r in chosen),
    )
    return cell, []


def _joined(names: Iterable[str | None]) -> str:
    return " / ".join(dict.fromkeys(name for name in names if name))


def group_records(records: Iterable[Record]) -> list[Group]:
    """Comparable groups of the training and published records, those with most cells with clean samples first.

    Simulations have panels of their own, published prices (metric `price`) are no scores, second-hand numbers
    (`extra.grade`) stay out of every analysis, and errors at a diffusion level are curves, not scores (see
    `compare.by_level.levels`): these are passed over.
    Raises DataError where a record has noisy samples and no noise level.
    """
    by_key: dict[GroupKey, dict[tuple[int, int, float | None], list[Record]]] = defaultdict(lambda: defaultdict(list))
    left_out: dict[GroupKey, list[str]] = defaultdict(list)
    truth: dict[GroupKey, GroupKey] = {}
    for record in records:
        if record.source == "simulate" or record.metric == "price" or record.extra.get("grade") == "second-hand":
            continue
        if record.level is not None:
            continue
        key = key_of(record)
        method, told, kind = without_noise(record.method)
        if (told or kind) and record.source == "train":
            truth[key] = replace(key, method=method_words(method))
        sigma_n = record.sigma_n
        if isinstance(sigma_n, tuple) and len(sigma_n) == 1:
            sigma_n = sigma_n[0]
        if record.n_clean + record.n_noisy == 0:
            raise DataError(f"a {record.metric} record of {record.dataset} has neither clean nor noisy images")
        if record.n_noisy and sigma_n is None:
            count = f"{record.n_noisy} noisy images"
            raise DataError(f"a {record.metric} record of {record.dataset} has {count} and no sigma_n")
        if isinstance(sigma_n, tuple):
            left_out[key].append(f"a cell with several noise levels {sigma_n} (one price cannot be read from it)")
            continue
        mixture = (record.n_clean, record.n_noisy, float(sigma_n) if record.n_noisy and sigma_n is not None else None)
        by_key[key][mixture].append(record)
    for key, base in truth.items():
        for mixture, rows in by_key.get(base, {}).items():
            if not mixture[1]:
                by_key[key].setdefault(mixture, rows)
    groups = []
    for key, mixtures in by_key.items():
        cells, notes = [], list(dict.fromkeys(left_out[key]))
        for mixture in sorted(mixtures, key=lambda m: (m[2] or 0.0, m[0], m[1])):
            cell, problems = _cell(mixture, mixtures[mixture])
            notes += problems
            if cell is not None:
                cells.append(cell)
        positive = all(v > 0 for cell in cells for v in cell.values)
        groups.append(Group(key, tuple(cells), "log" if positive else "raw", tuple(notes)))
    return sorted(groups, key=_rank)


def _rank(group: Group) -> tuple[Any, ...]:
    """Best first: measured here, more cells, more seeds, held-out reference, learned features, longer training."""
    key = group.key
    return (
        key.source != "train",
        -len(group.price_cells),
        -group.n_seeds,
        key.reference != "heldout-clean",
        key.metric != "fd",
        key.extractor_name == "pixels",
        -key.duration_nimg,
        key,
    )


def select(groups: Sequence[Group], *, metric: str | None = None, extractor: str | None = None) -> list[Group]:
    """Groups of one metric and one extractor (full `name:hash` or only its name). Raises DataError if none is left."""
    kept = [
        g
        for g in groups
        if (metric is None or g.key.metric == metric)
        and (extractor is None or extractor in (g.key.extractor, g.key.extractor_name))
    ]
    if groups and not kept:
        seen = sorted({f"{g.key.metric} in {g.key.extractor}" for g in groups})
        asked = " in ".join(x for x in (metric, extractor) if x)
        raise DataError(f"no record has {asked}; the records have {', '.join(seen)}")
    return kept


def longest(groups: Sequence[Group]) -> tuple[list[Group], int]:
    """Of groups that differ in nothing but the training duration the one that was trained longest, and how many others
    there are."""
    best: dict[GroupKey, int] = {}
    for g in groups:
        key = replace(g.key, duration_nimg=0)
        best[key] = max(best.get(key, 0), g.key.duration_nimg)
    kept = [g for g in groups if g.key.duration_nimg == best[replace(g.key, duration_nimg=0)]]
    return kept, len(groups) - len(kept)
