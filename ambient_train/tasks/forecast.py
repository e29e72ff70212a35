"""How long a training and its scores will take here, and with which flags they end sooner."""

from __future__ import annotations

import math
from dataclasses import replace

from ambient_theory.shared.plain_text import duration_text
from ambient_train.runs.resolve import Job
from ambient_train.runs.scoring_work import scoring_work
from ambient_train.settings.run_options import Schedule
from ambient_train.training.cost import StepCost, count_parameters, measure
from ambient_train.training.world import World

LONG_S, AIM_S = 900.0, 600.0
"""What takes longer is told, with what ends within the second."""
BUDGET_S = 2.0
"""Time that measuring it may take before a training starts."""
SURELY_SHORT = 1e13
"""Images x pixels x weights below which a training ends within minutes on any CPU, so that nothing is measured."""
FEWEST = 100
"""Generated images below which a score is not worth its time."""


def may_take_long(job: Job) -> bool:
    """Whether it is worth measuring how long the training takes on a CPU."""
    _, height, width = job.shape
    weights = count_parameters(job.config, job.shape, job.label_dim)
    return job.schedule.duration_nimg * height * width * weights > SURELY_SHORT


def forecast(job: Job, cost: StepCost, *, score: bool = True) -> str | None:
    """A sentence with the time and the flags that shorten it to ten minutes; None where it ends soon anyway.

    score: whether the run is scored.
    """
    rate = cost.rate(job.config)
    duration, evaluation = job.schedule.duration_nimg, job.evaluation
    work, pass_s = scoring_work(job), 1 / cost.evaluations_per_s
    train_s, score_s = duration / rate, work.evaluations * pass_s if score else 0.0
    if train_s + score_s <= LONG_S:
        return None
    said = f"training on {duration:,} images takes about {duration_text(train_s)} here ({rate:.3g} img/s)"
    flags, left = [], AIM_S
    if score:
        said += f", scoring (up to {work.generated:,} generated ones) about {duration_text(score_s)}"
        soon = scoring_work(replace(job, schedule=Schedule(duration_nimg=max(_round(AIM_S * rate), 1))))
        image_s = soon.generate / evaluation.n * pass_s  # of one seed, by every rule that chooses a checkpoint
        n = evaluation.n if evaluation.n * image_s <= AIM_S / 3 else _round(AIM_S / 3 / image_s)
        if n < FEWEST:
            flags.append("--no-score")
        else:
            flags += [f"--n-eval {n}"] if n < evaluation.n else []
            left -= n * image_s + (soon.denoise + soon.compare) * pass_s
    fewest = job.config.batch * 50
    flags.insert(0, f"--duration {max(_round(left * rate), fewest)}")
    if left * rate < fewest:
        flags.insert(0, f"--resolution {max(job.shape[-1] // 4, 8)}" if job.shape[-1] > 16 else "a GPU")
        said += f"; for a first look give {' '.join(flags)}"
    else:
        said += f"; {' '.join(flags)} ends within about ten minutes"
    return f"{said}. Ctrl-C saves, the same command continues."


def forecast_here(job: Job, world: World, *, score: bool = True) -> str | None:
    """`forecast` by a short measurement, where a training runs in one process on a CPU; None elsewhere."""
    if world.device.type != "cpu" or world.size > 1 or not may_take_long(job):
        return None
    cost = measure(job.config, job.training_set(), job.label_dim, world.device, budget_s=BUDGET_S)
    return forecast(job, cost, score=score)


def _round(x: float) -> int:
    """Down to two digits."""
    unit = 10 ** max(math.floor(math.log10(max(x, 1.0))) - 1, 0)
    return int(x // unit * unit)
