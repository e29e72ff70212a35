"""The proximal score: at its floor for the right law, above it for a wrong one, and blind below the noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ambient_theory.shared.errors import DataError
from ambient_train import stateless
from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.proximal import corrupt_like, noisy_reference, proximal_scores

SHAPE = (1, 4, 4)
LEVELS = np.repeat([0.1, 0.4], [300, 100])


def clean(seed: int, n: int = 2000, shift: float = 0.0, rough: float = 0.0) -> np.ndarray:
    """Constant images of level N(shift, .2^2), with a checkerboard of strength `rough` on top."""
    draw = np.random.default_rng(seed)
    level = draw.normal(shift, 0.2, (n, 1, 1, 1))
    board = np.indices((4, 4)).sum(0) % 2 * 2.0 - 1
    return (level + rough * board * draw.choice([-1, 1], (n, 1, 1, 1)) + np.zeros(SHAPE)).astype(np.float32)


def data(seed: int = 10) -> np.ndarray:
    x = clean(seed)
    levels = np.random.default_rng(seed + 1).choice(LEVELS, len(x))
    return x + (levels.reshape(-1, 1, 1, 1) * np.random.default_rng(seed + 2).normal(size=x.shape)).astype(np.float32)


def test_right_law_scores_zero_and_a_wrong_one_does_not() -> None:
    reference, pixels = noisy_reference(data()), [get_extractor("pixels")]
    kernel, right = sorted(proximal_scores(clean(1), reference, LEVELS, pixels), key=lambda s: s.metric == "fd")
    (wrong,) = proximal_scores(clean(1, shift=0.1), reference, LEVELS, pixels, ["fd"])
    (unnoised,) = proximal_scores(clean(1), reference, [0.0], pixels, ["fd"])
    # the kernel distance has expectation 0 at every n; the reference's own error is about as large as the other
    assert kernel.metric == "kid"
    assert abs(kernel.value) < 4 * 1.5 * kernel.stderr
    for other in (wrong, unnoised):
        assert other.value - right.value > 4 * np.hypot(other.stderr, right.stderr)
    assert right.reference == "heldout-noisy"
    assert right.method.startswith("proximal")


def test_noise_hides_what_is_finer_than_itself() -> None:
    pixels = [get_extractor("pixels")]
    values = []
    for level in (0.02, 0.8):
        truth = corrupt_like(clean(20), [level], seed=5)
        (score,) = proximal_scores(clean(1, rough=0.1), noisy_reference(truth), [level], pixels, ["fd"], seed=6)
        (right,) = proximal_scores(clean(1), noisy_reference(truth), [level], pixels, ["fd"], seed=6)
        values.append((score.value - right.value) / right.stderr)
    assert values[0] > 10 * max(values[1], 1)


def test_noise_of_an_image_depends_on_its_number_alone_and_is_no_noise_of_the_data() -> None:
    x = np.zeros((50, *SHAPE), np.float32)
    whole = corrupt_like(x, LEVELS, seed=3)
    assert np.array_equal(corrupt_like(x[:20], LEVELS, seed=3), whole[:20])
    assert np.array_equal(corrupt_like(x, LEVELS[::-1], seed=3), whole)
    assert not np.isclose(corrupt_like(x, LEVELS, seed=4), whole).any(axis=(1, 2, 3)).all()
    own = stateless.normal(3, "image-noise", torch.arange(50), SHAPE).numpy()
    one = corrupt_like(x, [1.0], seed=3)
    assert abs(np.corrcoef(one.ravel(), own.ravel())[0, 1]) < 4 / np.sqrt(own.size)


def test_strengths_are_those_of_the_data_in_their_shares() -> None:
    n = 4000
    noise = corrupt_like(np.zeros((n, 1, 8, 8), np.float32), LEVELS, seed=0).reshape(n, -1).std(axis=1)
    low = noise < 0.2
    assert abs(low.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / n)
    assert np.sqrt((noise[low] ** 2).mean()) == pytest.approx(0.1, rel=0.02)
    assert np.sqrt((noise[~low] ** 2).mean()) == pytest.approx(0.4, rel=0.02)


def test_strengths_that_make_no_sense_are_refused() -> None:
    for bad in ([], [-0.1], [np.nan]):
        with pytest.raises(DataError, match="strengths"):
            corrupt_like(clean(0, 5), bad, seed=0)
