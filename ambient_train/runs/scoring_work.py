"""What the scores of a run take: images through its network that train nothing, counted before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_train.diffusion.sampler_settings import evaluations
from ambient_train.evaluation.denoising import LEVELS, QUICK_IMAGES, QUICK_LEVELS
from ambient_train.runs.heldout import PROXIMAL_IMAGES, HeldOut, candidate_points
from ambient_train.runs.resolve import Job

SHARE = 0.1
"""Most of the time of a preset's own training that its scores may take."""


@dataclass(frozen=True)
class ScoringWork:
    """Work of all scores of a run, at most: as if the held-out best checkpoint were never the last one.

    generated: images. generate, denoise, compare: evaluations of the network, one an image and level, to generate
    them, for the held-out denoising error, and to look for the best checkpoint on the way.
    """

    generated: int
    generate: int
    denoise: int
    compare: int

    @property
    def evaluations(self) -> int:
        """All of them."""
        return self.generate + self.denoise + self.compare

    def share(self, train_s: float, evaluations_per_s: float) -> float:
        """Part of a run's time that its scores take, beside `train_s` seconds of training."""
        score_s = self.evaluations / evaluations_per_s
        return score_s / (train_s + score_s) if score_s else 0.0


def scoring_work(job: Job, *, clean: int | None = None) -> ScoringWork:
    """The work of a job's scores.

    clean: held-out clean images, where the data cannot be read; as many as are asked for at most.
    """
    evaluation, schedule = job.evaluation, job.schedule
    heldout = HeldOut(job.config, evaluation)
    if clean is not None:
        found = 0 if job.config.one_step else min(clean, evaluation.denoise)
        criterion = "denoise" if evaluation.best and found >= 4 else ""
    else:
        found = 0 if job.config.one_step or heldout.clean is None else len(heldout.clean)
        criterion = heldout.criterion
    points = len(schedule.scored)
    drawn_at = points if evaluation.generate_at == "every" else 1
    generated = drawn_at * evaluation.n * (2 if criterion else 1)
    steps = evaluations(evaluation.sampler)
    half = found - found // 2 if criterion == "denoise" else 0
    candidates = {*candidate_points(job.config.batch, schedule.duration_nimg), *schedule.scored} if criterion else set()
    each = {
        "denoise": min(found // 2, QUICK_IMAGES) * QUICK_LEVELS,
        "proximal": min(PROXIMAL_IMAGES, evaluation.n) * steps,
        "": 0,
    }[criterion]
    return ScoringWork(
        generated=generated,
        generate=generated * steps,
        denoise=points * (found + half) * LEVELS,
        compare=len(candidates) * each,
    )
