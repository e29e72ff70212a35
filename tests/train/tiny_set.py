"""64 made-up images and the config of a tiny network: a training of a second, for tests of the loop itself."""

from __future__ import annotations

import numpy as np

from ambient_train.data.load import ImageSet
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.settings.config import TrainConfig

TINY = TrainConfig(
    n_clean=20,
    n_noisy=44,
    sigma_n=0.3,
    batch=16,
    network={"model_channels": 8, "channel_mult": [1, 2], "emb_channels": 16},
    lr_ramp_nimg=64,
)


def data(config: TrainConfig = TINY) -> TrainingSet:
    """Pixels [64, 1, 8, 8] of three classes, corrupted as `config` says."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8)).astype(np.uint8)
    source = ImageSet("test", pixels, np.arange(64, dtype=np.int64) % 3, np.arange(64, dtype=np.int64))
    return corrupt(source, n_clean=config.n_clean, n_noisy=config.n_noisy, sigma_n=config.sigma_n, seed=config.seed)
