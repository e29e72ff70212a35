"""What `evaluate` does: score a network, or a set of images, against references, with intervals and floors."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambient_theory.shared.console import say, talk
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text, read_json
from ambient_theory.shared.frames import frame
from ambient_theory.shared.options import Given, by_key
from ambient_theory.shared.outdirs import check_outputs, differing
from ambient_theory.shared.progress import Listener, Progress, progress_listener
from ambient_theory.shared.records import Record, write_records
from ambient_train.data.images import ImageSet
from ambient_train.data.load import in_values, load_images
from ambient_train.data.place import absolute, is_there
from ambient_train.data.readers import open_source
from ambient_train.data.values import values_of
from ambient_train.diffusion.generate import generate
from ambient_train.diffusion.sampler_settings import AnySampler, GeneralSamplerConfig
from ambient_train.evaluation import own_references
from ambient_train.evaluation.denoising import DenoisingError
from ambient_train.evaluation.features import Extractor, default_extractors, get_extractor
from ambient_train.evaluation.floors import cautions
from ambient_train.evaluation.memorisation import Memorisation
from ambient_train.evaluation.metrics import TABLE as METRICS
from ambient_train.evaluation.metrics import metric_name
from ambient_train.evaluation.references import Reference, is_statistics_file, open_reference
from ambient_train.evaluation.scores import Score, average_seeds, score_images
from ambient_train.interchange.load import Trained, is_trained, load_trained
from ambient_train.networks.execution import one_thread_for_small
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.heldout import HeldOut
from ambient_train.runs.resolve import load_training_images, make_training_set
from ambient_train.runs.score import (
    Subject,
    denoise_records,
    floors_of,
    make_records,
    may_be_copied,
    memorisation_floors,
    memorisation_of,
)
from ambient_train.runs.whereabouts import saying_how_to_move, with_data_at, with_data_found
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig, ScoreOptions
from ambient_train.settings.requests import Question
from ambient_train.tasks.generate import below_the_data, sampler_for
from ambient_train.tasks.show import denoise_sentences, sampler_text, show_score_rows, verdicts
from ambient_train.training.world import choose_device

SCORES, RECORDS = "scores.json", "records.jsonl"
"""What `--outdir` gets."""
N_WITHOUT_RUN = 5000
"""Images generated for a network that comes from no run."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of one target: the mean over repeats where there are several.

    floors, memorised: (metric, extractor label, reference) -> score of as many clean images, and of a model that
    repeats its clean training images. evaluation: how images were generated, None for a set of images. denoised: the
    held-out denoising error of a run. cautions: what makes the scores say less than their intervals suggest. records:
    for `ambient compare`, empty unless the target is a run or an export of one.
    """

    target: str
    scores: list[Score]
    floors: Mapping[tuple[str, str, str], float]
    memorised: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    evaluation: EvalConfig | None = None
    denoised: DenoisingError | None = None
    cautions: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    memorisation: Memorisation | None = None

    def to_dict(self) -> dict[str, Any]:
        rows = []
        for score in self.scores:
            key = (score.metric, score.extractor, score.reference)
            low = {"floor": self.floors.get(key), "memorisation_floor": self.memorised.get(key)}
            rows.append({**score.to_dict(), **low})
        evaluation = None if self.evaluation is None else self.evaluation.to_dict()
        about = {"evaluation": evaluation, "cautions": self.cautions}
        denoised = None if self.denoised is None else self.denoised.to_dict()
        copied = {} if self.memorisation is None else {"memorisation": self.memorisation.to_dict()}
        return {"target": self.target, "scores": rows, "denoise": denoised, **about, **self.notes, **copied}

    def __repr__(self) -> str:
        shown = ", ".join(f"{s.metric} {s.value:.4g} ({s.extractor}, {s.reference})" for s in self.scores[:2])
        return f"Evaluation({self.target!r}{': ' + shown if shown else ''})"

    def to_frame(self) -> Any:
        """The scores as a `pandas.DataFrame`, one row a score. Raises UsageError without pandas."""
        return frame(self.to_dict()["scores"])

    def show(self) -> None:
        rows = [
            (s.metric, s.extractor, s.reference, s.value, s.interval(), s.n, self.floors, self.memorised, s.n_reference)
            for s in self.scores
        ]
        show_score_rows(rows)
        for sentence in (*verdicts(rows), *denoise_sentences(self.records), *self.cautions):
            say(sentence)
        if self.evaluation is not None:
            print(f"sampler: {sampler_text(self.evaluation.to_dict())}")
        for key, value in self.notes.items():
            print(f"{key}: {value}")
        if self.memorisation is not None:
            say(self.memorisation.sentence())
        elif self.evaluation is not None:
            say("copies: not looked for; --memorisation does")


def evaluate(
    target: str | os.PathLike[str],
    question: Question | None = None,
    *,
    evaluation: Given[ScoreOptions] | None = None,
    sampler: Given[Any] | None = None,
    outdir: Path | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score a network (images are generated, image k from seed `seed + k`) or a set of images.

    A run is scored as it remembers, with what is given in place of its own. Raises UsageError and DataError.
    """
    question, given = question or Question(), evaluation or Given(ScoreOptions, {})
    device = choose_device(question.device)
    if question.save_stats is not None and question.save_stats.suffix.lower() != ".npz":
        raise UsageError(f"--save-stats {question.save_stats}: give a name that ends in .npz")
    trained = load_trained(target, device=device, nimg=question.nimg) if is_trained(target) else None
    one_thread_for_small("SmallUNet" if trained is None else trained.arch, device)
    if trained is None:
        _check_for_images(question, given, sampler)
    if trained is not None and trained.one_step and given.values.get("denoise"):
        raise UsageError(f"{trained.name} is a distilled generator, no denoiser: leave --n-denoise out")
    others = None if trained is not None else load_target(target)
    values = values_of(trained.data) if trained is not None else None if others is None else others.values
    question = replace(
        question,
        data=None if question.data is None else in_values(question.data, values),
        references=tuple(in_values(spec, values) for spec in question.references),
    )
    own = _OwnData(trained, question)
    with progress_listener(quiet) as listener:
        if trained is None:
            assert others is not None
            asked = given.over(EvalConfig(extractors=()))
            count = asked.n if "n" in given.values else None
            images = own_references.clean_uint8(others)[:count]
            shape, sets = images.shape[1:], iter([iter([images])])
        else:
            asked, chosen = _as_remembered(trained, given, sampler)
            for note in filter(None, (below_the_data(trained, chosen), *trained.complaints)):
                talk(note, quiet=quiet)
            shape = (trained.network.img_channels, trained.network.img_resolution, trained.network.img_resolution)
            sets = (_generate(trained, asked, k, chosen, device, listener) for k in range(question.repeats))
        asked = replace(asked, extractors=asked.extractors or _fitting(shape[:2], quiet))
        features = [get_extractor(e, device=device) for e in asked.extractors]
        about = _about(target, trained, question, asked)
        if outdir is not None:
            _check_outdir(outdir, about)
        available = own.references(question.resolution, shape[1])
        targets = _references(question.references, available, features, question.resolution)
        repeated, clean = own.clean_images(), available.get("train-clean")
        a_run = trained is not None and trained.config is not None
        trained_on = repeated if a_run or clean is None else clean.images
        if trained is not None:
            _check_channels(trained.network.img_channels, targets)
        _check_sides(shape, targets, features)
        if asked.memorisation and not may_be_copied(trained_on, available.get("heldout-clean")):
            why = "the run saw no two clean images, or none is held out" if a_run else "give --data"
            raise UsageError(f"--memorisation needs clean training images and held-out ones: {why}")
        statistics = {}
        if question.save_stats is not None:
            statistics = _statistics_files(question.save_stats, targets, features)
        first: list[np.ndarray] = []
        every = []
        for number, batches in enumerate(sets):
            kept = _keeping(batches, first) if asked.memorisation and number == 0 else batches
            every.append(score_images(kept, targets, features, asked.metrics))
    scores = [average_seeds(group) for group in zip(*every, strict=True)]
    n = scores[0].n if scores else asked.n
    metrics = tuple(m for m in dict.fromkeys(map(metric_name, asked.metrics)) if METRICS[m].needs_reference)
    denoised = None
    if trained is not None and (config := own.config()) is not None:
        denoised = HeldOut(config, asked).error(trained.network, half=False, device=device)
    copied = None
    if asked.memorisation:
        copied = memorisation_of(np.concatenate(first), trained_on, available.get("heldout-clean"), features)
    result = Evaluation(
        os.fspath(target),
        scores,
        floors_of(clean, targets, features, n, metrics) if metrics else {},
        memorisation_floors(repeated, targets, features, n, metrics) if metrics and trained is not None else {},
        asked if trained is not None else None,
        denoised,
        memorisation=copied,
    )
    result.cautions.extend(cautions(scores))
    for file, (reference, extractor) in statistics.items():
        reference.save(file, extractor)
    if statistics:
        result.notes["statistics"] = list(map(str, statistics))
    if trained is not None and trained.config is not None and trained.data is not None:
        names = own.names_in_records({name: r for name, r in targets.items() if name in available})
        result.records.extend(_records(result, trained, asked, names))
        if names:
            lost = "; the denoising error, which takes the run's own, is left out"
            result.cautions.append(
                "not the images of the run: its records stand apart, as scores against "
                f"{' and '.join(names.values())}{lost if asked.denoise and denoised is None else ''}"
            )
    if outdir is not None:
        _write(result, outdir, about)
    return result


def _check_for_images(question: Question, given: Given[ScoreOptions], sampler: Given[Any] | None) -> None:
    """Raise UsageError for what is only asked of networks."""
    flags = {key: d.flag for cls in (Question, ScoreOptions, GeneralSamplerConfig) for key, d in by_key(cls).items()}
    idle = [key for key in ("repeats", "nimg") if getattr(question, key) != getattr(Question(), key)]
    idle += [key for key in ("seed", "denoise") if key in given.values] + list(sampler.values if sampler else ())
    if idle:
        words = ", ".join(flags[key] for key in idle)
        raise UsageError(f"{words}: for networks only, a set of images is scored once and as it is: leave it out")


def load_target(target: str | os.PathLike[str]) -> ImageSet:
    """The images that are to be scored, all of them. Raises DataError where there are none."""
    if not is_there(os.fspath(target)):
        raise DataError(f"{target}: no such run, network or images")
    return load_images(os.fspath(target), split="all", holdout=0.0)


Batches = Iterator[np.ndarray]


def _as_remembered(
    trained: Trained, given: Given[ScoreOptions], sampler: Given[Any] | None
) -> tuple[EvalConfig, AnySampler]:
    """How the run is scored, with what is given in place of its own, and the sampler."""
    remembered = trained.evaluation or EvalConfig(n=N_WITHOUT_RUN, extractors=())
    chosen = sampler_for(trained, sampler)
    return replace(given.over(remembered), sampler=chosen), chosen


def _fitting(shape: tuple[int, int], quiet: bool) -> tuple[str, ...]:
    names, why_not = default_extractors(*shape)
    for sentence in why_not:
        talk(f"left out {sentence}", quiet=quiet)
    return tuple(names)


def _generate(
    trained: Trained, asked: EvalConfig, repeat: int, sampler: AnySampler, device: torch.device, listener: Listener
) -> Batches:
    first, done = asked.seed + repeat * asked.n, 0
    seeds = range(first, first + asked.n)
    for batch in generate(trained.network, seeds, sampler, precision=trained.precision, device=device):
        done += len(batch)
        listener(Progress("sampling", done, asked.n))
        yield batch


def _keeping(batches: Batches, kept: list[np.ndarray]) -> Batches:
    for batch in batches:
        kept.append(batch)
        yield batch


@dataclass(frozen=True)
class _OwnData:
    """The data that a target is compared with by default: those named, else the run's own, wherever they are now."""

    trained: Trained | None
    question: Question

    def config(self) -> TrainConfig | None:
        """The run's config, with the data's place as it is now; None where the target comes from no run.

        `--data` may name the new place of the run's own images: their hash decides.
        """
        if self.trained is None or self.trained.config is None:
            return None
        if self.question.data is not None:
            return with_data_at(self.trained.config, self.question.data, self.question.resolution)
        return with_data_found(self.trained.config, self.trained.data)

    def references(self, resolution: int | None, side: int) -> dict[str, Reference]:
        """`heldout-clean` and `train-clean`."""
        c = self.config()
        if c is not None:
            with saying_how_to_move(c):
                return own_references.references(c.data, resolution or c.resolution, c.holdout, c.max_images)
        if self.question.data is not None:
            return own_references.references(self.question.data, resolution or side, None, None)
        return {}

    def names_in_records(self, references: Mapping[str, Reference]) -> dict[str, str]:
        """What the records of a run call these references where they are not of its own images: with the name and the
        content of those that they are of, so that they are compared with nothing else. Empty for its own."""
        c = self.config()
        if c is not None and self.question.resolution in (None, c.resolution):
            return {}
        source = open_source(c.data if c is not None else self.question.data or "").name
        return {name: f"{name} of {source} {r.content_hash}" for name, r in references.items()}

    def clean_images(self) -> np.ndarray | None:
        """The clean images that the run was trained on, uint8; None where that cannot be told."""
        c = self.config()
        if c is None:
            return None
        with saying_how_to_move(c):
            mixture = make_training_set(c, load_training_images(c.data, c.resolution, c.holdout, c.max_images))
        return own_references.clean_uint8(mixture.clean_images()) if mixture.n_clean else None


def _references(
    asked: tuple[str, ...], available: dict[str, Reference], features: list[Extractor], resolution: int | None
) -> dict[str, Reference]:
    if not asked:
        if not available:
            raise UsageError(
                "give --data (a data set to compare with) or --reference (images, or an .npz of statistics)"
            )
        return available
    out = {}
    for spec in asked:
        if spec in available:
            out[spec] = available[spec]
        elif spec in ("heldout-clean", "train-clean"):
            raise UsageError(f"reference {spec!r} is not to be had here: give --data, or another --reference")
        else:
            if is_statistics_file(spec) and len(features) != 1:
                raise UsageError(f"{spec} holds statistics of one extractor: give exactly one --extractor")
            side = None if is_statistics_file(spec) else resolution
            out[spec] = open_reference(spec, features[0], name=spec, resolution=side)
    return out


def _check_channels(channels: int, targets: Mapping[str, Reference]) -> None:
    """Raise DataError for reference images with other channels than the network makes."""
    for name, reference in targets.items():
        if reference.images is not None and (found := reference.images.shape[1]) != channels:
            raise DataError(
                f"{name}: images with {found} channel(s), the network makes {channels}: give --data or --reference "
                "with images like those that it was trained on"
            )


def _check_sides(shape: tuple[int, ...], targets: Mapping[str, Reference], features: list[Extractor]) -> None:
    """Raise DataError for reference images of another side than those that are scored, [C, H, W], where features are
    as many as the pixels."""
    by_size = [f.name for f in features if f.dim is None]
    for name, reference in targets.items():
        if by_size and reference.images is not None and (found := reference.images.shape[2:]) != shape[1:]:
            mine, theirs = (f"{height}x{width}" for height, width in (shape[1:], found))
            raise DataError(
                f"{name}: images of {theirs} pixels, those that are scored have {mine}, and "
                f"{', '.join(by_size)} cannot compare them: give --resolution {shape[1]}"
            )


def _statistics_files(
    path: Path, targets: dict[str, Reference], features: list[Extractor]
) -> dict[Path, tuple[Reference, Extractor]]:
    """The file of each reference and extractor; with a single pair exactly `path`. Raises UsageError where one would
    take the place of another, or of a file that `ambient` did not write."""
    pairs = list(itertools.product(targets.values(), features))
    out: dict[Path, tuple[Reference, Extractor]] = {}
    for reference, extractor in pairs:
        stem = f"{path.stem}-{Path(reference.name).stem}-{extractor.name.split(':')[0]}.npz"
        file = path if len(pairs) == 1 else path.with_name(stem)
        if file in out:
            raise UsageError(f"--save-stats would write {file} twice: give one --reference at a time")
        if os.path.lexists(file) and not is_statistics_file(file, own=True):
            raise UsageError(f"{file} exists and holds no statistics of ambient: give --save-stats another name")
        out[file] = (reference, extractor)
    return out


def _records(result: Evaluation, trained: Trained, asked: EvalConfig, names: Mapping[str, str]) -> list[Record]:
    """The records that training would have written, had it scored in this way.

    names: of references that stand under another one here, see `_OwnData.names_in_records`.
    """
    assert trained.config is not None
    assert trained.data is not None
    subject, nimg = Subject.of_data(trained.config, trained.data), _asked_images(trained)
    out = make_records(
        subject,
        result.scores,
        asked,
        nimg,
        floors=result.floors,
        memorised=result.memorised,
        memorisation=result.memorisation,
    )
    out = [replace(r, reference=names.get(r.reference, r.reference)) for r in out]
    if result.denoised is not None:
        out += denoise_records(subject, result.denoised, asked, nimg)
    return [replace(r, extra={**r.extra, "nimg": trained.nimg}) for r in out]


def _asked_images(trained: Trained) -> int:
    """The duration that was asked for where the checkpoint is its last whole step, as training records it."""
    if trained.directory is not None and trained.config is not None:
        batch = trained.config.batch
        result = RunDirectory(trained.directory).result() or {"points": []}
        for point in result["points"]:
            if -(-int(point["nimg"]) // batch) * batch == trained.nimg:
                return int(point["nimg"])
    return trained.nimg


def _about(
    target: str | os.PathLike[str], trained: Trained | None, question: Question, asked: EvalConfig
) -> dict[str, Any]:
    """What scores are of: everything that makes two of them differ, with absolute paths, in JSON types."""
    about = {
        "target": _place(target),
        "nimg": None if trained is None else trained.nimg,
        "data": None if question.data is None else _place(question.data),
        "resolution": question.resolution,
        "references": list(map(_place, question.references)),
        "repeats": question.repeats,
        **asked.to_dict(),
    }
    return dict(json.loads(json.dumps(about)))


def _place(target: str | os.PathLike[str]) -> str:
    """The absolute path of what is there, else the name as it is."""
    return absolute(os.fspath(target)) or os.fspath(target)


def _check_outdir(outdir: Path, about: dict[str, Any]) -> None:
    """Raise UsageError where the folder holds scores of something else, or other files of these names."""
    file = outdir / SCORES
    check_outputs(outdir, (SCORES, RECORDS), "evaluation", own=file.is_file())
    if not file.is_file():
        return
    try:
        stored = read_json(file)
        target, before = stored["target"], stored.get("asked")
        if before is None:  # an earlier version said no more
            before = {**about, "target": _place(target)}
        others = differing(before, about)
    except (DataError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{outdir} holds scores of something else: choose another --outdir") from None
    if "target" in others:
        raise UsageError(f"{outdir} holds scores of {target}: choose another --outdir")
    if others:
        raise UsageError(f"{outdir} holds scores with another {', '.join(others)}: choose another --outdir")


def _write(result: Evaluation, outdir: Path, about: dict[str, Any]) -> None:
    """`scores.json`, and for a run of ours `records.jsonl` for `ambient compare`."""
    atomic_write_text(outdir / SCORES, json.dumps({**result.to_dict(), "asked": about}, indent=1) + "\n")
    if result.records:
        write_records(outdir / RECORDS, result.records)
