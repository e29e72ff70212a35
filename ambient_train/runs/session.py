"""One sitting of a training: reach a point from the newest checkpoint that holds, save on the way, score it there.

All ranks of a group walk through this together; whatever decides the path (a signal, the time limit, a NaN, a file
that does not hold, a full disk) is agreed upon before it is followed.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ambient_theory.shared.errors import DataError, StoppedError
from ambient_theory.shared.progress import Listener, Progress, ignore
from ambient_theory.shared.records import HELDOUT_BEST, NATS, Record
from ambient_theory.shared.signals import StopRequest
from ambient_train.data.images import save_grid
from ambient_train.data.mixture import TrainingSet
from ambient_train.diffusion.generate import generate
from ambient_train.diffusion.sampler_settings import evaluations
from ambient_train.evaluation.denoising import DenoisingError
from ambient_train.networks.execution import recompute_blocks
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.heldout import HeldOut, candidate_points
from ambient_train.runs.resolve import Job
from ambient_train.runs.score import Subject, denoise_records, score_run
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.run_options import RunOptions
from ambient_train.training import checkpoints
from ambient_train.training.checkpoints import Checkpoint
from ambient_train.training.distillation import DistillState, train_distilled
from ambient_train.training.loop import BatchDivergedError, StepEnd, train
from ambient_train.training.state import TrainState
from ambient_train.training.world import World

GRID, PREVIEW = 64, 16
"""Images of a grid that is drawn when a run is scored, and of one on the way."""

FORWARD_SHARE = 1 / 3
"""Cost of an image through the network over that of training on it, which also goes back."""

FIRST_LOOK_S, FIRST_LOOK_COST_S = 30.0, 20.0
"""Seconds of training after which a first grid is drawn, and the most that it may take."""

PREVIEW_SHARE = 0.01
"""Share of the training that the grids on the way may cost, unless they are asked for more often."""


@dataclass
class Session:
    """What the phases of a run share. started: time.monotonic() when the command began."""

    job: Job
    data: TrainingSet
    directory: RunDirectory
    options: RunOptions
    world: World
    stop: StopRequest
    started: float
    listener: Listener = ignore
    talk: Callable[[str], None] = lambda message: None
    config: TrainConfig = field(init=False)
    evaluation: EvalConfig = field(init=False)
    heldout: HeldOut = field(init=False)
    state: TrainState = field(init=False)
    looked: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.config, self.evaluation = self.job.config, self.job.evaluation
        self.heldout = HeldOut(self.config, self.evaluation)
        with self.world.together():
            self.state = self._fresh()

    def _fresh(self) -> TrainState:
        if (teacher := self.job.teacher) is not None:
            shape, device = self.data.shape, self.world.device
            weights, errors = teacher.weights, teacher.errors
            return DistillState(self.config, shape, self.job.label_dim, device, weights=weights, errors=errors)
        state = TrainState(
            self.config,
            self.data.shape,
            self.job.label_dim,
            self.world.device,
            sharded=self.options.shard,
            world=self.world,
        )
        if self.job.start is not None:
            state.begin_from(self.job.start)
        if self.options.recompute:
            recompute_blocks(state.network)
        return state

    def train_to(self, target: int) -> None:
        """Train until `target` images, from the newest checkpoint that holds.

        Raises StoppedError after saving, DataError where no checkpoint holds, BatchDivergedError, OSError.
        """
        while True:
            self._reach(target)
            try:
                return self._run(target)
            except BatchDivergedError as error:
                self._roll_back(error)

    def _reach(self, target: int) -> None:
        """Restore the newest checkpoint that holds and does not lie beyond `target`, unless the state is as far."""
        found: list[Checkpoint] = []
        plan = self.world.by_leader(lambda: self._choose(target, found))
        self.state.skipped = tuple(plan["skipped"])
        if plan["meta"] is None:
            return
        groups = self.world.share_tensors(found[0].groups if found else None)
        self.state.restore(Checkpoint(groups, plan["meta"]))
        self.state.skipped = tuple(plan["skipped"])

    def _choose(self, target: int, found: list[Checkpoint]) -> dict[str, Any]:
        """The leader's part of `_reach`: put the checkpoint to restore into `found`, rewind the metrics, say so."""
        batch, nimg = self.config.batch, self.state.nimg
        checkpoints.remove_stale(self.directory.checkpoints)
        damaged: list[str] = []
        for candidate in reversed(checkpoints.available(self.directory.checkpoints)):
            if not nimg < int(candidate.name) < target + batch:
                continue
            try:
                checkpoint = checkpoints.load(candidate)
            except DataError as error:
                damaged.append(str(error))
                continue
            if misfit := self.state.misfit(checkpoint):
                damaged.append(f"{candidate}: {misfit}")
                continue
            found.append(checkpoint)
            break
        if damaged and not found and nimg == 0:
            raise DataError(
                f"no checkpoint in {self.directory.checkpoints} holds ({'; '.join(damaged)}): "
                "restore one, or remove that folder to start again"
            )
        skipped = {*self.state.skipped, *(found[0].meta.get("skipped", ()) if found else ())}
        try:
            skipped |= {*self.directory.skipped()}
        except DataError as error:
            damaged.append(f"{error}; going on with the list of the checkpoint")
        for message in damaged:
            self.talk(f"passed over a damaged file: {message}")
            self.directory.log(message)
        if found:
            self.talk(f"continuing at {found[0].nimg:,} images")
            self.directory.log(f"resumed at {found[0].nimg}")
        reached = found[0].nimg if found else nimg
        if reached >= target:  # nothing is trained here, and the lines beyond belong to later checkpoints
            reached = max([reached, *(int(p.name) for p in checkpoints.available(self.directory.checkpoints))])
        lost = self.directory.rewind_metrics(reached)
        if lost and found:
            what = "is gone" if lost < 0 else f"had {lost} lines that cannot be read, which are left out"
            self.talk(f"metrics.jsonl {what}: no weights or scores depend on it")
            self.directory.log(f"metrics.jsonl {what}")
        return {"meta": dict(found[0].meta) if found else None, "skipped": sorted(skipped)}

    def _roll_back(self, error: BatchDivergedError) -> None:
        """Note the batch as one to pass over and forget the state; raise `error` if that is not allowed (again)."""
        if self.options.on_nan != "rollback" or len(self.state.skipped) >= self.options.max_rollbacks:
            raise error
        skipped = tuple(sorted({*self.state.skipped, error.first_sample}))

        def note() -> None:
            self.directory.skip(skipped)
            self.directory.log(f"rolled back: {error}")
            self.talk(f"rolling back, batch from sample {error.first_sample:,} will be passed over: {error}")

        self.world.by_leader(note)
        self.state = self._fresh()
        self.state.skipped = skipped

    def _run(self, target: int) -> None:
        """Steps until `target`, with metrics, checkpoints and the answer to requests to leave."""
        state, options, batch = self.state, self.options, self.config.batch
        duration = self.job.schedule.duration_nimg
        every = options.checkpoint_nimg or max(batch * 50, duration // 10)
        tick = options.tick_nimg or max(batch, duration // 50)
        candidates = {*self._candidates(target)}
        look = self._preview_every()
        clock, before = time.monotonic(), state.nimg
        train_it: Any = train if self.job.teacher is None else train_distilled
        steps: Iterator[StepEnd] = train_it(
            state,
            self.data,
            target,
            world=self.world,
            micro_batch=options.micro_batch,
            compiled=options.compile,
            flags=self._flags,
        )
        for end in steps:
            done = end.nimg >= target
            rate = (end.nimg - before) / max(time.monotonic() - clock, 1e-9)
            heldout = self._compare() if end.nimg in candidates else None
            if done or heldout is not None or end.nimg // tick != (end.nimg - batch) // tick:
                self._write_metrics(end, rate, heldout)
            self.listener(Progress("training", end.nimg, target, rate, end.known_loss))
            *signals, late = end.votes if self.world.size > 1 else self._flags()
            asked = any((*signals, late))
            if look and self._first_look(clock, rate) and not done:
                self._preview()
                self.talk(f"a first look, far from trained: {self._grid_file()}")
            elif look and (end.nimg // look != (end.nimg - batch) // look or done) and not self._drawn_at(target, done):
                self._preview()  # before the checkpoint, so that a kill between the two repeats it
            better = heldout is not None and self.state.best == (end.nimg, heldout)
            if done or better or end.nimg // every != (end.nimg - batch) // every or asked:
                self._save()
            if not done and asked:
                self._leave(signals, late)

    def _first_look(self, clock: float, rate: float) -> bool:
        """Whether a first grid is due: the training began FIRST_LOOK_S ago and has none yet, so that its owner sees a
        picture within a minute where the first on the way would come much later."""
        if self.looked or self.world.size > 1 or self.options.samples_nimg is not None:
            return False
        if time.monotonic() - clock < FIRST_LOOK_S:
            return False
        self.looked = True
        cost_s = PREVIEW * evaluations(self.evaluation.sampler) * FORWARD_SHARE / rate
        return cost_s < FIRST_LOOK_COST_S and not any(self.directory.samples.glob("*.png"))

    def _preview_every(self) -> int:
        """Images between grids of samples, 0 for none: as asked, else a tenth of the duration, but so many that the
        grids cost at most `PREVIEW_SHARE` of the training."""
        if self.options.samples_nimg is not None:
            return self.options.samples_nimg
        affordable = math.ceil(PREVIEW * evaluations(self.evaluation.sampler) * FORWARD_SHARE / PREVIEW_SHARE)
        return max(self.job.schedule.duration_nimg // 10, affordable)

    def _drawn_at(self, target: int, done: bool) -> bool:
        """Whether the scores at `target`, which is reached, draw a larger grid of the same seeds anyway."""
        return done and self.options.score and self._distances_at(target)

    def _preview(self) -> None:
        """A grid of the first seeds of the evaluation with the averaged weights, `samples/<images>.png`.

        Images are functions of their seeds: nothing that trains depends on when, or whether, it is drawn.
        """
        evaluation, world, state = self.evaluation, self.world, self.state
        with self._averaged():
            seeds = world.padded_part(range(evaluation.seed, evaluation.seed + PREVIEW))
            made = generate(
                state.network, seeds, evaluation.sampler, precision=self.config.precision, device=world.device
            )
            images = world.gather(np.concatenate(list(made)), PREVIEW)
        world.by_leader(lambda: save_grid(images, self._grid_file()))

    def _grid_file(self) -> Path:
        return self.directory.samples / f"{self.state.nimg:012d}.png"

    def _candidates(self, target: int) -> tuple[int, ...]:
        """Points up to `target` at which the held-out best is looked for, `target` (in whole steps) among them."""
        batch = self.config.batch
        if not self.heldout.criterion:
            return ()
        scored = (-(-n // batch) * batch for n in self.job.schedule.scored if n <= target)
        return (*candidate_points(batch, target), *scored)

    def _compare(self) -> float | None:
        """The criterion of the averaged weights on held-out images, remembered if it is the best so far."""
        with self._averaged():
            value = self._on_leader(lambda: self.heldout.quick(self.state.network, self.world.device))
        if value is not None and (self.state.best is None or value < self.state.best[1]):
            self.state.best = (self.state.nimg, value)
        return value

    def _on_leader(self, measure: Callable[[], float | None]) -> float | None:
        """A number that the leader measures, on every rank; with weights that are split every rank takes part."""
        if self.state.sharded:
            measured = measure()
            return self.world.by_leader(lambda: measured)
        return self.world.by_leader(measure)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Inside this block the network has its averaged weights."""
        state = self.state
        weights = {name: p.detach().clone() for name, p in state.network.named_parameters()}
        state.ema.copy_to(state.network)
        try:
            yield
        finally:
            if state.sharded:
                state.network.reshard()  # after a forward pass without a backward pass the outer weights are whole
            with torch.no_grad():
                for name, p in state.network.named_parameters():
                    p.copy_(weights[name])

    def _flags(self) -> list[bool]:
        """Requests to leave that this rank has heard: the signals, and that the time is up."""
        limit = self.options.max_time_s
        return [*self.stop.flags(), limit is not None and time.monotonic() - self.started > limit]

    def _leave(self, signals: list[bool], late: bool) -> None:
        """Raise StoppedError for what any rank has heard; the state is saved."""
        self.stop.adopt(signals)
        name = self.stop.signal.name if self.stop.signal else "the time limit"
        self.world.by_leader(lambda: self.directory.log(f"stopped by {name} at {self.state.nimg}"))
        saved = f"saved at {self.state.nimg:,} images in {self.directory.path}"
        self.stop.check(saved)
        raise StoppedError(f"the time limit is reached: {saved}; the same command continues")

    def _write_metrics(self, end: StepEnd, rate: float, heldout: float | None) -> None:
        """A line of means since the last one, with what was measured on held-out images."""
        sums = self.state.sums
        line = {
            "nimg": end.nimg,
            **{name: total / sums["steps"] for name, total in sums.items() if name != "steps"},
            "lr": end.lr,
            "img_per_s": round(rate, 1),
            "wall_s": round(time.monotonic() - self.started, 2),
            **({} if heldout is None else {f"heldout_{self.heldout.criterion}": heldout}),
        }
        self.world.by_leader(lambda: self.directory.append_metrics(line))
        self.state.sums = dict.fromkeys(sums, 0.0)

    def _save(self) -> None:
        checkpoint = self.state.checkpoint()
        batch = self.config.batch
        protected = {-(-n // batch) * batch for n in self.job.schedule.scored}  # whole steps
        if self.state.best is not None:
            protected.add(self.state.best[0])

        def write() -> None:
            protected.update(-(-n // batch) * batch for n in self.directory.scored_points(self.config))
            if not self.options.score:  # each point is scored later, and its best checkpoint with it
                parent = self.directory.checkpoints
                passed = [p for p in checkpoints.available(parent) if int(p.name) in protected]
                protected.update(n for p in passed if (n := checkpoints.best_at(p)) is not None)
            checkpoints.save(self.directory.checkpoints, checkpoint)
            checkpoints.prune(self.directory.checkpoints, self.options.keep_checkpoints, protected)

        self.world.by_leader(write)

    def score(self, target: int) -> list[Record]:
        """Generate with the averaged weights, each rank its part of the seeds, and score; sealed into result.json.

        Then the same for the held-out best checkpoint, where one is kept; if that was the best one at an earlier point
        already, its scores are taken over. Images are generated where the evaluation says. A signal leaves where it
        arrives in a single process, at the next batch of images in a group.
        """
        saved = f"training is saved at {self.state.nimg:,} images in {self.directory.path}"
        best, begun = self.state.best, time.monotonic()
        none: list[Record] | None = None if self._distances_at(target) else []
        records, error = self._judged(target, saved, "last", none)
        if best is not None:
            if best[0] == self.state.nimg:
                error = self.heldout.half_of(error)
                again = self.world.by_leader(lambda: self._plain(None, target, HELDOUT_BEST, error, records))
                records += [Record.from_dict(r) for r in again]
            else:
                records += self._taken_over(best[0], target) or self._judge_checkpoint(best[0], target, saved, none)

        def keep() -> None:
            elapsed = time.monotonic() - self.started
            self.directory.add_scores(self.config, self.evaluation, target, records, elapsed)
            self.directory.log(f"scored at {self.state.nimg} in {time.monotonic() - begun:.1f} s")

        self.world.by_leader(keep)
        return records

    def _distances_at(self, target: int) -> bool:
        """Whether images are generated when `target` is scored."""
        return self.evaluation.generate_at == "every" or target == self.job.schedule.duration_nimg

    def _taken_over(self, nimg: int, target: int) -> list[Record]:
        """Scores of the checkpoint at `nimg` as those of the best one at `target`: the same weights score the same.

        Empty where it was not the best at an earlier point, or where not all that is wanted now was measured then.
        """

        def read() -> list[dict[str, Any]]:
            elapsed = round(time.monotonic() - self.started, 2)
            for records in self.directory.scores(self.config, self.evaluation).values():
                found = [r for r in records if r.checkpoint == HELDOUT_BEST and r.extra.get("nimg") == nimg]
                if found and (not self._distances_at(target) or any(_is_distance(r) for r in found)):
                    wanted = [r for r in found if self._distances_at(target) or not _is_distance(r)]
                    return [replace(r, duration_nimg=target, wall_s=elapsed).to_dict() for r in wanted]
            return []

        return [Record.from_dict(r) for r in self.world.by_leader(read)]

    def _judge_checkpoint(self, nimg: int, target: int, saved: str, known: list[Record] | None) -> list[Record]:
        """Scores of the checkpoint at `nimg`, with the state as it is afterwards; empty where it does not hold."""
        found: list[Checkpoint] = []

        def read() -> dict[str, Any]:
            path = self.directory.checkpoints / checkpoints.directory_name(nimg)
            try:
                found.append(checkpoints.load(path))
            except DataError as error:
                self.talk(f"the held-out best checkpoint is not scored: {error}")
                self.directory.log(f"the held-out best checkpoint is not scored: {error}")
                return {"meta": None}
            return {"meta": dict(found[0].meta)}

        meta = self.world.by_leader(read)["meta"]
        if meta is None:
            return []
        kept = self.state.checkpoint()  # whose tensors are the state's own
        now = Checkpoint({g: {k: t.clone() for k, t in ts.items()} for g, ts in kept.groups.items()}, kept.meta)
        groups = self.world.share_tensors(found[0].groups if found else None)
        self.state.restore(Checkpoint(groups, meta))
        try:
            return self._judged(target, saved, HELDOUT_BEST, known)[0]
        finally:
            self.state.restore(now)

    def _judged(
        self, target: int, saved: str, rule: str, known: list[Record] | None
    ) -> tuple[list[Record], DenoisingError | None]:
        """Records of the weights at hand under a checkpoint rule, and on the leader their denoising error.

        known: distances of the same weights under another rule, empty where none are wanted; None: to be measured.
        """
        with self._averaged():
            with self.stop.at_once(saved) if self.world.size == 1 else contextlib.nullcontext():
                generated = None if known is not None else self._generate(saved)
                network, device = self.state.network, self.world.device
                measure = functools.partial(self.heldout.error, network, half=rule == HELDOUT_BEST, device=device)
                denoised = measure() if self.state.sharded or self.world.leader else None

            def judge() -> list[dict[str, Any]]:
                with self.stop.at_once(saved):
                    return self._plain(generated, target, rule, denoised, known)

            return [Record.from_dict(r) for r in self.world.by_leader(judge)], denoised

    def _plain(self, *judged: Any) -> list[dict[str, Any]]:
        """`_judge` as JSON."""
        return [r.to_dict() for r in self._judge(*judged)]

    def _generate(self, saved: str) -> np.ndarray:
        """All images of the evaluation on the leader, uint8 [n, C, H, W]; image k is a function of seed k."""
        evaluation, world = self.evaluation, self.world
        images, clock, count = [], time.monotonic(), 0
        seeds = world.padded_part(range(evaluation.seed, evaluation.seed + evaluation.n))
        for part in generate(
            self.state.network, seeds, evaluation.sampler, precision=self.config.precision, device=world.device
        ):
            images.append(part)
            count = min(count + len(part) * world.size, evaluation.n)
            self.listener(Progress("sampling", count, evaluation.n, count / max(time.monotonic() - clock, 1e-9)))
            if world.size > 1:
                self.stop.adopt(world.any(self.stop.flags()))
                self.stop.check(saved)
        return world.gather(np.concatenate(images), evaluation.n)

    def _judge(
        self,
        generated: np.ndarray | None,
        target: int,
        rule: str,
        denoised: DenoisingError | None,
        known: list[Record] | None,
    ) -> list[Record]:
        """Score the images, or take over what is known of the same weights."""
        elapsed = round(time.monotonic() - self.started, 2)
        subject = Subject.of_job(self.job)
        if generated is None:
            assert known is not None
            records = [replace(r, checkpoint=rule) for r in known if _is_distance(r)]
        else:
            self.listener(Progress("scoring", 0, len(generated)))
            if rule == "last":
                save_grid(generated[:GRID], self._grid_file())
            records = score_run(self.job, self.data, self.heldout, generated, target, checkpoint=rule, wall_s=elapsed)
        if denoised is not None:
            records += denoise_records(subject, denoised, self.evaluation, target, checkpoint=rule, wall_s=elapsed)
        return [replace(r, extra={**r.extra, "nimg": self.state.nimg}) for r in records]


def _is_distance(record: Record) -> bool:
    """Whether a record was taken from generated images, not from the denoising of held-out ones."""
    return record.level is None and record.metric != NATS
