"""Floors from the reference itself, and the words that go with scores of few images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.floors import cautions, reference_floor
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import floor, score_images


def images(seed: int, n: int, side: int = 4, level: float = 128) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(level, 40, (n, 1, side, side)), 0, 255).astype(np.uint8)


def test_sixty_images_of_one_law_in_784_dimensions_get_a_floor_and_a_word() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.integers(0, 255, (n, 1, 28, 28), dtype=np.uint8) for n in (60, 200))
    reference, pixels = Reference("b", b), get_extractor("pixels")
    (score,) = score_images(a, {"b": reference}, [pixels], ["fd"])
    assert score.value == pytest.approx(392, abs=5)  # of images from one law
    (low,) = reference_floor(reference, len(a), pixels, ["fd"])
    assert low.value > score.value - 4 * np.hypot(score.stderr, low.stderr)  # no better than real images score
    assert low.method.startswith("floor: 60 of the reference's 200 images against its other 140; ")
    (word,) = cautions([score])
    assert "60 generated images and 200 b images in 784 dimensions" in word
    assert "all bias" in word
    others = [replace(score, extractor="smallcnn"), replace(score, n_reference=1000)]
    shared, alone = cautions([score, *others])
    assert shared.startswith("fd in pixels and smallcnn: 60 generated images and 200 b images in 784 dimensions; ")
    assert alone.startswith("fd in pixels: 60 generated images in 784 dimensions; ")


def test_reference_floor_is_that_of_a_perfect_model_and_not_of_a_wrong_one() -> None:
    reference, pixels = Reference("real", images(1, 4000)), get_extractor("pixels")
    low = {s.metric: s for s in reference_floor(reference, 1000, pixels)}
    assert set(low) == {"fd", "kid"}
    perfect = score_images(images(2, 1000), {"real": reference}, [pixels])
    wrong = score_images(images(3, 1000, level=136), {"real": reference}, [pixels])
    for good, bad in zip(perfect, wrong, strict=True):
        at = low[good.metric]
        assert abs(good.value - at.value) < 4 * np.hypot(good.stderr, at.stderr)
        assert bad.value - at.value > 4 * np.hypot(bad.stderr, at.stderr)
        assert (at.n, at.n_reference, at.reference, at.drawn) == (1000, 3000, "real", "without replacement")
    assert cautions([*perfect, *wrong]) == []


def test_reference_floor_draws_other_images_for_another_seed_and_the_same_for_the_same() -> None:
    reference, pixels = Reference("real", images(1, 400)), get_extractor("pixels")
    first, again, other = (reference_floor(reference, 100, pixels, ["fd"], seed=s)[0] for s in (0, 0, 1))
    assert first == again
    assert first.value != other.value


def test_a_reference_that_cannot_give_a_floor_gives_none(tmp_path) -> None:
    pixels = get_extractor("pixels")
    assert reference_floor(Reference("few", images(1, 79)), 50, pixels) == []
    assert len(reference_floor(Reference("enough", images(1, 80)), 50, pixels, ["fd"])) == 1
    whole = Reference("real", images(1, 300))
    whole.save(tmp_path / "real.npz", pixels)
    assert reference_floor(Reference.from_file(tmp_path / "real.npz", pixels), 50, pixels) == []
    assert reference_floor(whole, 50, get_extractor("smallcnn"), ["is"]) == []


def test_a_floor_says_how_its_images_were_drawn() -> None:
    reference, pixels = Reference("real", images(1, 500)), get_extractor("pixels")
    (enough,) = floor(images(2, 600), reference, 300, pixels, metrics=["fd"])
    (few,) = floor(images(2, 100), reference, 300, pixels, metrics=["fd"])
    assert (enough.drawn, few.drawn) == ("without replacement", "with replacement")
    assert enough.method.startswith("floor: 300 drawn from 600 real images without replacement")
    assert few.method.startswith("floor: 300 drawn from 100 real images with replacement")
    (score,) = score_images(images(3, 300), {"real": reference}, [pixels], ["fd"])
    assert score.drawn == ""


def test_small_references_are_named_once_and_large_ones_are_not() -> None:
    pixels = get_extractor("pixels")
    small, large = Reference("small", images(1, 150)), Reference("large", images(2, 200))
    scores = score_images(images(3, 300), {"small": small, "large": large}, [pixels])
    words = cautions(scores)
    assert len(words) == 1
    assert words[0].startswith("small has 150 images")
