"""One sitting of a training: reach a point from the newest checkpoint that holds, save on the way, score it there.

All ranks of a group walk through this together; whatever decides the path (a signal, the time limit, a NaN, a file
that does not hold, a full disk) is agreed upon before it is followed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ambient_theory.shared.errors import DataError, StoppedError
from ambient_theory.shared.records import Record
from ambient_train.training import checkpoints
from ambient_train.data.images import save_grid
from ambient_train.diffusion.generate import generate
from ambient_train.runs.score import score_run
from ambient_train.training.checkpoints import Checkpoint
from ambient_train.settings.config import TrainConfig
from ambient_train.data.mixture import TrainingSet
from ambient_train.training.world import World
from ambient_theory.shared.progress import Listener, Progress, ignore
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.resolve import Job
from ambient_train.settings.run_options import RunOptions
from ambient_train.settings.evaluation import EvalConfig
from ambient_theory.shared.signals import StopRequest
from ambient_train.training.loop import BatchDivergedError, StepEnd, TrainState, train


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
    state: TrainState = field(init=False)

    def __post_init__(self) -> None:
        self.config, self.evaluation = self.job.config, self.job.evaluation
        with self.world.together():
            self.state = self._fresh()

    def _fresh(self) -> TrainState:
        return TrainState(
            self.config,
            self.data.shape,
            self.job.label_dim,
            self.world.device,
            sharded=self.options.shard,
            world=self.world,
        )

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
        if found or nimg == 0:
            self.directory.rewind_metrics(found[0].nimg if found else 0)
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
        torch.backends.cuda.matmul.allow_tf32 = self.config.precision != "fp32"
        clock, before = time.monotonic(), state.nimg
        steps = train(
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
            if done or end.nimg // tick != (end.nimg - batch) // tick:
                self._write_metrics(end, rate)
            self.listener(Progress("training", end.nimg, target, rate, end.loss))
            *signals, late = end.votes if self.world.size > 1 else self._flags()
            asked = any((*signals, late))
            if done or end.nimg // every != (end.nimg - batch) // every or asked:
                self._save()
            if not done and asked:
                self._leave(signals, late)

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

    def _write_metrics(self, end: StepEnd, rate: float) -> None:
        """A line of means since the last one."""
        sums = self.state.sums
        line = {
            "nimg": end.nimg,
            "loss": sums["loss"] / sums["steps"],
            "grad_norm": sums["grad_norm"] / sums["steps"],
            "lr": end.lr,
            "img_per_s": round(rate, 1),
            "wall_s": round(time.monotonic() - self.started, 2),
        }
        self.world.by_leader(lambda: self.directory.append_metrics(line))
        self.state.sums = dict.fromkeys(sums, 0.0)

    def _save(self) -> None:
        checkpoint = self.state.checkpoint()
        batch = self.config.batch
        protected = {-(-n // batch) * batch for n in self.job.schedule.scored}  # whole steps

        def write() -> None:
            checkpoints.save(self.directory.checkpoints, checkpoint)
            checkpoints.prune(self.directory.checkpoints, self.options.keep_checkpoints, protected)

        self.world.by_leader(write)

    def score(self, target: int) -> list[Record]:
        """Generate with the averaged weights, each rank its part of the seeds, and score; sealed into result.json.

        A signal leaves where it arrives in a single process, at the next batch of images in a group.
        """
        state, saved = self.state, f"training is saved at {self.state.nimg:,} images in {self.directory.path}"
        alone = self.world.size == 1
        weights = {name: p.detach().clone() for name, p in state.network.named_parameters()}
        state.ema.copy_to(state.network)
        try:
            with self.stop.at_once(saved) if alone else contextlib.nullcontext():
                generated = self._generate(saved)

            def judge() -> list[dict[str, Any]]:
                with self.stop.at_once(saved):
                    return [r.to_dict() for r in self._judge(generated, target)]

            return [Record.from_dict(r) for r in self.world.by_leader(judge)]
        finally:
            if state.sharded:
                state.network.reshard()  # after a forward pass without a backward pass the outer weights are whole
            with torch.no_grad():
                for name, p in state.network.named_parameters():
                    p.copy_(weights[name])

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

    def _judge(self, generated: np.ndarray, target: int) -> list[Record]:
        """Score the images and keep the result."""
        nimg, elapsed = self.state.nimg, time.monotonic() - self.started
        save_grid(generated[:64], self.directory.samples / f"{nimg:012d}.png")
        self.listener(Progress("scoring", 0, len(generated)))
        records = score_run(self.job, self.data, generated, target, wall_s=round(elapsed, 2))
        self.directory.add_scores(self.config, self.evaluation, target, records, time.monotonic() - self.started)
        self.directory.log(f"scored at {nimg}")
        return records
