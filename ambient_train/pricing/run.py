"""`ambient worth`: from a source of images to the worth of a noisy one, by a sweep that is designed while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ambient_theory.shared.advice import Adviser, Mixture, Purchase, Worth
from ambient_theory.shared.console import talk
from ambient_theory.shared.errors import DataError, StoppedError
from ambient_theory.shared.outdirs import check_outputs
from ambient_theory.shared.plain_text import duration_text
from ambient_theory.shared.records import write_records
from ambient_train.data.images import ImageSet
from ambient_train.networks.execution import one_thread_for_small
from ambient_train.pricing.answer import WorthAnswer, where_text
from ambient_train.pricing.campaign import Asked, Campaign, stored_state
from ambient_train.pricing.images import NoCleanImages, SmallImages, small_images, write_images
from ambient_train.pricing.stages import Rates, Stage, first_cells, stage, stages_for
from ambient_train.runs.resolve import resolve
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.layers import TrainSettings, settings_from
from ambient_train.settings.worth import WorthOptions
from ambient_train.sweep.grid import Grid, SweepCell, write_grid
from ambient_train.sweep.pool import CellOutcome, check, run_sweep
from ambient_train.training.cost import measure
from ambient_train.training.world import choose_device

_READ_AGAIN_S = 0.5
"""A training that took less was done before, and says nothing new."""
PRESET = "digits"
"""Whose network, optimiser and sampler are used: small images, small network."""
OUTPUTS = ("worth.json", "images", "records.jsonl", "grid.toml", "index.html", "table.csv", "fit.json", "figures")
"""What an answer leaves in its folder, the page's files among them; it is known by the first."""
_DENOISE, _LONG_S = (256, 1024), 1200.0
"""Held-out images by which models are judged: in a short campaign, and in one longer than so many seconds."""


@dataclass(frozen=True, repr=False)
class Plan:
    """What would be trained: for `--dry-run`."""

    small: SmallImages
    sigmas: Mapping[float, float]
    stages: tuple[Stage, ...]
    cell_s: tuple[float, ...]
    first: tuple[Mixture, ...]
    cells: int
    time_s: float
    outdir: Path

    def __repr__(self) -> str:
        return f"Plan({str(self.outdir)!r}, about {self.cells} trainings in {duration_text(self.time_s)})"

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": "ambient.worth-plan/1",
            "dataset": self.small.name,
            "resolution": self.small.resolution,
            "n_train": self.small.n_train,
            "n_heldout": self.small.n_heldout,
            "sigmas": [{"asked": a, "at_this_size": b} for a, b in self.sigmas.items()],
            "noise": self.small.noise.asked or "white",
            "stages": [
                {**s.to_dict(), "score_at": list(s.score_at), "seconds_a_training": round(c, 1)}
                for s, c in zip(self.stages, self.cell_s, strict=True)
            ],
            "first_cells": [m.name for m in self.first],
            "trainings": self.cells,
            "time_s": self.time_s,
            "outdir": str(self.outdir),
        }

    def show(self) -> None:
        for sentence in self.small.sentences():
            print(sentence)
        for s, seconds in zip(self.stages, self.cell_s, strict=True):
            print(
                f"trainings of {s.duration_nimg:,} images, clean-only sizes from {s.unit:,}: about "
                f"{duration_text(seconds)} each with its scores"
            )
        print(f"first: {', '.join(m.name for m in self.first)}")
        print(f"then what narrows the price most; about {self.cells} trainings in {duration_text(self.time_s)}")
        print(f"answer and page: {self.outdir}")


def worth(
    data: str,
    options: WorthOptions,
    adviser: Adviser,
    *,
    outdir: Path | None = None,
    runs: Path = Path("runs"),
    dry_run: bool = False,
    quiet: bool = False,
) -> WorthAnswer | Plan:
    """Train until the time is up and say what a noisy image is worth, or only say what would be trained.

    Raises DataError for data that cannot answer, UsageError for too short a time, StoppedError on a signal or where the
    time was up before there was an answer; the same command then goes on.
    """
    begun = time.monotonic()
    device = choose_device(options.device).type
    try:
        small = small_images(data, options.resolution, options.noise)
    except NoCleanImages as error:
        guesses = "; ".join(adviser.guess(sigma) for sigma in options.sigmas)
        raise NoCleanImages(f"{error}; {guesses}") from None
    sigmas = {sigma: small.sigma_n(sigma) for sigma in options.sigmas}
    levels = "-".join(f"{s:g}" for s in options.sigmas)
    kind = f"-{small.noise.kind}-{small.noise.content}" if small.noise.kind else ""
    folder = outdir or runs / f"worth-{small.name}-{small.resolution}px-s{levels}{kind}"
    question = {
        "images": small.content_hash[:16],
        "resolution": small.resolution,
        "sigmas": list(sigmas.values()),
        "draw": TrainConfig.draw,
        **({"noise": small.noise.content} if small.noise.kind else {}),
    }
    stored = stored_state(folder)
    check_outputs(folder, OUTPUTS, "campaign", own=stored is not None)
    if stored is None:
        denoise = min(small.n_heldout, _DENOISE[options.time_s >= _LONG_S])
        rates = _rates(small, sigmas, denoise, device)
        stages = stages_for(
            options.time_s,
            rates,
            workers=options.workers,
            sigmas=len(sigmas),
            n_train=small.n_train,
            denoise=denoise,
            read_s=time.monotonic() - begun,
        )
    else:
        denoise, rates = int(stored["denoise"]), Rates(**stored["rates"])
        stages = tuple(Stage(**s) for s in stored["stages"])
    campaign = Campaign(
        folder,
        question,
        tuple(sigmas.values()),
        small.n_train,
        denoise,
        stages,
        rates,
        options.time_s,
        options.workers,
        clock=lambda: time.monotonic() - begun,
    )
    further = None
    if stored is not None:
        campaign.take_up(stored)
        further = campaign.lengthen()
    if dry_run:
        return _plan(campaign, small, sigmas, adviser)
    for sentence in small.sentences():
        talk(sentence, quiet=quiet)
    if further is not None:
        talk(f"there is time for longer trainings now: of {further.duration_nimg:,} images each", quiet=quiet)
    campaign.save()  # first, since by it the folder is known as ours
    used = Used.written(small, folder / "images")
    outcomes = _train(campaign, used, adviser, sigmas, runs, device, quiet)
    stopped = [o for o in outcomes if o.state == "stopped"]
    campaign.save()
    if stopped:
        check(outcomes, Grid("worth", "", tuple(o.cell for o in outcomes), ()))
    answered = campaign.best
    if answered is None:
        failed = next((o for o in outcomes if o.state == "failed"), None)
        if failed is not None:
            check(outcomes, Grid("worth", "", tuple(o.cell for o in outcomes), ()))
        raise StoppedError(
            f"the time is up after {len(campaign.done)} of the {first_cells(len(sigmas))} trainings of a first answer: "
            "the same command with a longer --time goes on"
        )
    talk("working out the answer and the page", quiet=quiet)
    return _answer(campaign, small, sigmas, options, adviser, answered, used)


@dataclass(frozen=True)
class Used:
    """What the trainings read: data, noise: as `--data` and `--noise` take them."""

    data: str
    noise: str = ""

    @classmethod
    def written(cls, small: SmallImages, folder: Path) -> Used:
        """Images and noise as files of the folder."""
        path = folder / f"{small.name}.npz"
        write_images(small, path)
        return cls(str(path), small.noise.write(folder))

    def of(self, mixture: Mixture) -> dict[str, Any]:
        """The amounts of a mixture and its noise, as a grid has them."""
        if not mixture.n_noisy:
            return {"n_clean": mixture.n_clean}
        noise = {"noise": self.noise} if self.noise else {}
        return {"n_clean": mixture.n_clean, "n_noisy": mixture.n_noisy, "sigma": mixture.sigma_n, **noise}


def _train(
    campaign: Campaign,
    used: Used,
    adviser: Adviser,
    sigmas: Mapping[float, float],
    runs: Path,
    device: str,
    quiet: bool,
) -> list[CellOutcome]:
    """Run what was asked for and is not done, then ask for more until the time is up."""
    by_label: dict[str, Asked] = {}

    def cell_of(asked: Asked) -> SweepCell:
        made = _cell(campaign, used, asked)
        by_label[made.label] = asked
        return made

    def more(outcome: CellOutcome) -> list[SweepCell]:
        asked = by_label[outcome.cell.label]
        seconds = max([outcome.wall_s, *(r.wall_s or 0.0 for r in outcome.records)])
        campaign.finish(asked, outcome.records if outcome.state == "done" else None, seconds)
        _write_records(campaign)
        following = campaign.next(adviser) if len(campaign.waiting()) < campaign.workers else None
        _tell(campaign, adviser, sigmas, outcome, quiet)
        return [] if following is None else [cell_of(following)]

    start = [cell_of(asked) for asked in campaign.asked]
    while len(campaign.waiting()) < campaign.workers and (following := campaign.next(adviser)) is not None:
        start.append(cell_of(following))
    if not start:
        return []
    grid = Grid("worth", "", tuple(start), ())
    return run_sweep(grid, runs, workers=campaign.workers, device=device, more=more)


def _cell(campaign: Campaign, used: Used, asked: Asked) -> SweepCell:
    chosen = campaign.stages[asked.stage]
    return SweepCell(
        f"{asked.mixture.name} {chosen.duration_nimg}",
        asked.seed,
        settings_for(used, asked.mixture, asked.seed, chosen, campaign.denoise),
    )


def settings_for(used: Used, mixture: Mixture, seed: int, chosen: Stage, denoise: int) -> TrainSettings:
    """The settings of one training: those of the preset, judged by denoising error."""
    return settings_from({**table_for(used.data, chosen, denoise), **used.of(mixture), "seed": seed})


def table_for(data: str, chosen: Stage, denoise: int) -> dict[str, Any]:
    """What all trainings of a stage share, as a grid has it."""
    return {
        "preset": PRESET,
        "data": data,
        "draw": TrainConfig.draw,
        "duration_nimg": chosen.duration_nimg,
        "score_at": list(chosen.score_at[:-1]),
        # a few samples to look at; models are judged by the held-out denoising error
        "evaluation": {"n": 40, "extractors": ["pixels"], "metrics": ["fd"], "denoise": denoise},
    }


def _rates(small: SmallImages, sigmas: Mapping[float, float], denoise: int, device: str) -> Rates:
    """Measured here, with the network and the images that will be trained."""
    train = np.flatnonzero(~small.heldout).astype(np.int64)
    source = ImageSet(small.name, small.images[train], None, train)
    mixture = Mixture(8, 8, next(iter(sigmas.values())))
    settings = settings_for(Used("digits"), mixture, 0, stage(8192, small.n_train), denoise)
    job = resolve(settings, load=lambda *_: source)
    one_thread_for_small(job.config.arch, device)
    begun, computed = time.perf_counter(), time.process_time()
    cost = measure(job.config, job.training_set(), job.label_dim, choose_device(device), budget_s=3.0)
    passed, computed = time.perf_counter() - begun, time.process_time() - computed
    slowdown = max(passed / computed, 1.0) if computed > 0 else 1.0
    return Rates(cost.train_img_per_s, cost.evaluations_per_s, round(slowdown, 2))


def _tell(
    campaign: Campaign,
    adviser: Adviser,
    sigmas: Mapping[float, float],
    outcome: CellOutcome,
    quiet: bool,
) -> None:
    """A line on what was done and what is known so far."""
    if quiet:
        return
    done = len(campaign.done)
    line = f"[{done}] {outcome.cell.label}: {outcome.state}, {outcome.wall_s:,.0f} s"
    if outcome.message:
        line += f" ({outcome.message})"
    talk(f"{line}; about {duration_text(max(campaign.left_s, 0.0))} left for training")
    number = campaign.answered
    if number is not None and outcome.wall_s > _READ_AGAIN_S:
        stage_records = campaign.records(number)
        for sigma, scaled in sigmas.items():
            rough = adviser.rough(stage_records, scaled, campaign.stages[number].duration_nimg)
            talk(f"    σ {sigma:g} so far: {rough}")


def _write_records(campaign: Campaign) -> None:
    every = [r for k in range(len(campaign.stages)) for r in campaign.records(k)]
    write_records(campaign.folder / "records.jsonl", every)


def _plan(campaign: Campaign, small: SmallImages, sigmas: Mapping[float, float], adviser: Adviser) -> Plan:
    """What the campaign would do: the first cells, and how many trainings fit."""
    first: dict[Mixture, None] = {}
    last = campaign.stages[-1]
    for sigma_n in sigmas.values():
        candidates = last.candidates(sigma_n, small.n_train)
        advice = adviser.advise((), sigma_n, candidates, cost=lambda mixture: 1.0, cells=first_cells(1))
        first |= dict.fromkeys(step.mixture for step in advice.steps)
    seconds = tuple(s.cell_s(campaign.rates, campaign.denoise) for s in campaign.stages)
    left, cells = campaign.left_s * campaign.workers, 0
    for number, s in enumerate(seconds[:-1]):
        missing = max(first_cells(len(sigmas)) - sum(a.stage == number for a in campaign.asked), 0)
        cells += missing
        left -= s * missing
    cells += max(int(left // seconds[-1]), 0)
    return Plan(small, sigmas, campaign.stages, seconds, tuple(first), cells, campaign.time_s, campaign.folder)


def _answer(
    campaign: Campaign,
    small: SmallImages,
    sigmas: Mapping[float, float],
    options: WorthOptions,
    adviser: Adviser,
    number: int,
    used: Used,
) -> WorthAnswer:
    records = campaign.records(number)
    worths: dict[float, list[Worth]] = {}
    unanswered: dict[float, str] = {}
    purchases: dict[float, Purchase] = {}
    notes, page = [], None
    for sigma, scaled in sigmas.items():
        try:
            worths[sigma] = adviser.worths(records, scaled)
        except DataError as error:
            unanswered[sigma] = str(error)
            continue
        if options.price_clean is None or options.price_noisy is None:
            continue
        prices, where = (options.price_clean, options.price_noisy, options.budget), where_text(sigma, scaled, small)
        try:
            purchases[sigma] = adviser.purchase(records, scaled, *prices, where=where)
        except DataError as error:
            notes.append(f"nothing says what to buy at {where}: {error}")
    try:
        page = adviser.page(records, campaign.folder)
    except DataError as error:
        notes.append(f"no page: {error}")
    _write_grid(campaign, number, used)
    if campaign.failed:
        notes.append(f"{len(campaign.failed)} trainings failed and are left out")
    done = [a for a in campaign.done if a.stage == number]
    campaign.save()
    return WorthAnswer(
        small,
        sigmas,
        worths,
        unanswered,
        purchases,
        campaign.stages[number],
        len(done),
        max(a.mixture.n_clean + a.mixture.n_noisy for a in done),
        campaign.spent_s + campaign.clock(),
        page,
        campaign.folder / "records.jsonl",
        tuple(notes),
    )


def _write_grid(campaign: Campaign, number: int, used: Used) -> None:
    """The trainings of the answer as a grid that `ambient sweep` takes."""
    seeds: dict[Mixture, list[int]] = {}
    for a in campaign.asked:
        if a.stage == number:
            seeds.setdefault(a.mixture, []).append(a.seed)
    chosen = campaign.stages[number]
    cells = [{"name": f"{m.name} {chosen.duration_nimg}", **used.of(m), "seeds": own} for m, own in seeds.items()]
    base = table_for(used.data, chosen, campaign.denoise)
    table = {"name": "worth", "description": "the trainings of this answer", "base": base, "cell": cells}
    write_grid(campaign.folder / "grid.toml", table)
