"""Diffusion models on mixtures of clean and noisy images: data, networks, training, sampling, evaluation, sweeps.

    from ambient_train import evaluate, generate, load, restore, train, worth

Nothing is imported before it is used; see `ambient_train.tasks.api` and `ambient_train.pricing.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.lazy import lazily

if TYPE_CHECKING:
    from ambient_train.pricing.api import worth as worth
    from ambient_train.tasks.api import Model as Model
    from ambient_train.tasks.api import evaluate as evaluate
    from ambient_train.tasks.api import generate as generate
    from ambient_train.tasks.api import load as load
    from ambient_train.tasks.api import restore as restore
    from ambient_train.tasks.api import train as train

_TASKS = ("Model", "evaluate", "generate", "load", "restore", "train")
_PLACES = {name: f"ambient_train.tasks.api:{name}" for name in _TASKS} | {"worth": "ambient_train.pricing.api:worth"}

__getattr__, __dir__ = lazily(__name__, _PLACES)
