"""Samples of two atoms under two noise levels, for the tests of the mixtures."""

from __future__ import annotations

import numpy as np

from ambient_theory.mixtures.laws import AtomicLaw

LAW = AtomicLaw([-1.5, 2.0], [0.35, 0.65])


def drawn(n, seed=0, law=LAW, levels=(0.5, 2.0)):
    rng = np.random.default_rng(seed)
    s = rng.choice(levels, n)
    return law.sample(s, rng), s
