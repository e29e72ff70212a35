"""Scores: the value, its interval, its floor, and what is refused."""

import json

import numpy as np
import pytest
import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.images import to_uint8
from ambient_train.data.load import load_images
from ambient_train.evaluation.features import Extractor, get_extractor
from ambient_train.evaluation.frechet import frechet_distance
from ambient_train.evaluation.references import Reference, open_reference
from ambient_train.evaluation.scores import Score, average_seeds, floor, score_images
from ambient_train.evaluation.statistics import FeatureStatistics


class Counting(Extractor):
    """Counts the images it was asked for; the features are random projections of the pixels."""

    name, hash, dim = "counting", "00000000", 5

    def __init__(self):
        self.seen = 0
        self._map = np.random.default_rng(0).normal(size=(16, 5)) / 64

    def _features(self, batch):
        self.seen += len(batch)
        return batch.flatten(1).numpy() @ self._map


def images(seed, n, level=128):
    return np.clip(np.random.default_rng(seed).normal(level, 40, (n, 1, 4, 4)), 0, 255).astype(np.uint8)


def test_value_is_the_distance_of_the_statistics_of_all_images():
    extractor = get_extractor("pixels")
    real, fake = images(1, 900), images(2, 700, 140)
    (score,) = score_images(fake, {"real": real}, [extractor], ["fd"])
    a, b = (FeatureStatistics.from_features(extractor(x)) for x in (real, fake))
    assert score.value == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert (score.n, score.n_reference, score.reference) == (700, 900, "real")
    assert score.extractor == extractor.label


def test_scores_do_not_depend_on_how_generated_images_are_batched():
    real, fake = {"real": images(1, 400)}, images(2, 2500)
    whole = score_images(fake, real, [get_extractor("pixels")])
    cut = score_images(iter(np.array_split(fake, 17)), real, [get_extractor("pixels")])
    for a, b in zip(whole, cut, strict=True):
        assert (a.metric, a.n) == (b.metric, b.n)
        assert (a.value, a.stderr) == (pytest.approx(b.value, rel=1e-7), pytest.approx(b.stderr, rel=1e-6))


def test_tensors_and_floats_score_as_the_uint8_images_they_round_to():
    real, fake = {"real": images(1, 400)}, images(2, 100)
    expected = score_images(fake, real, [get_extractor("pixels")])
    floats = fake / 127.5 - 1
    for same in (torch.tensor(fake), floats, torch.tensor(floats), iter([torch.tensor(floats)])):
        assert score_images(same, real, [get_extractor("pixels")]) == expected


def test_a_reference_is_computed_once_for_many_scores():
    extractor = Counting()
    reference = Reference("real", images(1, 400))
    score_images(images(2, 100), {"real": reference}, [extractor])
    before = extractor.seen
    score_images(images(3, 100), {"real": reference}, [extractor])
    assert extractor.seen - before == 100


def test_perfect_generator_scores_its_floor_and_a_shifted_one_does_not():
    extractor = get_extractor("pixels")
    reference = Reference("real", images(1, 5000))
    floors = floor(images(2, 4000), reference, 1000, extractor, seed=3)
    perfect = score_images(images(4, 1000), {"real": reference}, [extractor])
    shifted = score_images(images(5, 1000, 138), {"real": reference}, [extractor])
    for at_floor, good, bad in zip(floors, perfect, shifted, strict=True):
        assert "without replacement" in at_floor.method
        assert abs(good.value - at_floor.value) < 4 * np.hypot(good.stderr, at_floor.stderr)
        assert bad.value - at_floor.value > 4 * np.hypot(bad.stderr, at_floor.stderr)


def test_memorisation_floor_of_few_images_lies_above_the_floor_of_many():
    extractor = get_extractor("pixels")
    reference = Reference("real", images(1, 5000))
    few = floor(images(2, 60), reference, 1000, extractor, metrics=["fd"])[0]
    many = floor(images(2, 4000), reference, 1000, extractor, metrics=["fd"])[0]
    assert "with replacement" in few.method
    assert few.value > many.value + 4 * many.stderr
    assert floor(images(2, 60), reference, 1000, extractor, metrics=["fd"])[0] == few
    assert floor(images(2, 60), reference, 1000, extractor, seed=1, metrics=["fd"])[0].value != few.value


def test_intervals_widen_with_confidence_and_centre_on_the_value():
    score = Score(
        metric="fd", extractor="pixels:0", reference="r", value=2.0, stderr=0.1, n=100, n_reference=9, method="m", df=19
    )
    low, high = score.interval(0.95)
    assert high - 2.0 == pytest.approx(2.0 - low) == pytest.approx(0.2093, abs=1e-4)
    assert score.interval(0.99)[1] > high
    with pytest.raises(UsageError):
        score.interval(95)


def test_a_score_is_json_with_its_schema_first():
    (score,) = score_images(images(1, 200), {"real": images(2, 200)}, [get_extractor("pixels")], ["kid"])
    text = json.dumps(score.to_dict(), allow_nan=False)
    assert text.startswith('{"schema": "ambient.score/1"')
    assert set(json.loads(text)) >= {"metric", "extractor", "value", "stderr", "n", "n_reference", "method"}


def test_statistics_from_a_file_give_the_same_distance_as_the_images(tmp_path):
    extractor = get_extractor("pixels")
    real, fake = Reference("real", images(1, 500)), images(2, 300)
    real.save(tmp_path / "real.npz", extractor)
    from_file = Reference.from_file(tmp_path / "real.npz", extractor)
    (ours,) = score_images(fake, {"real": real}, [extractor], ["fd"])
    (theirs,) = score_images(fake, {"real": from_file}, [extractor], ["fd", "kid"])
    assert theirs == ours
    with pytest.raises(DataError, match="cannot be compared"):
        Reference.from_file(tmp_path / "real.npz", get_extractor("smallcnn"))


def test_unusable_requests_are_refused():
    pixels = get_extractor("pixels")
    real = {"real": images(1, 100)}
    with pytest.raises(UsageError, match="fvd"):
        score_images(images(2, 100), real, [pixels], ["fvd"])
    with pytest.raises(UsageError, match="no reference"):
        score_images(images(2, 100), {}, [pixels])
    with pytest.raises(DataError, match="too few"):
        score_images(images(2, 30), real, [pixels], ["fd"])
    with pytest.raises(DataError, match="no generated images"):
        score_images(iter([]), real, [pixels])
    with pytest.raises(DataError, match="at most 4096"):
        score_images(np.zeros((50, 3, 64, 64), np.uint8), real, [pixels], ["fd"])
    with pytest.raises(DataError, match="uint8"):
        Reference("real", np.zeros((9, 1, 4, 4), np.float32))


def test_the_mean_of_seeds_has_the_textbook_error_and_keeps_the_values():
    real = {"real": images(1, 500)}
    seeds = [score_images(images(10 + k, 400), real, [get_extractor("pixels")], ["fd"])[0] for k in range(4)]
    mean = average_seeds(seeds)
    values = np.array([s.value for s in seeds])
    assert mean.value == pytest.approx(values.mean())
    assert mean.stderr == pytest.approx(values.std(ddof=1) / 2)
    assert mean.spread == pytest.approx(values.std(ddof=1))
    assert (mean.df, mean.n, mean.values) == (3, 400, tuple(values))
    assert mean.to_dict()["min"] == values.min()
    assert average_seeds(seeds[:1]) == seeds[0]
    with pytest.raises(UsageError, match="different n "):
        average_seeds([seeds[0], score_images(images(9, 300), real, [get_extractor("pixels")], ["fd"])[0]])


def test_a_reference_opens_from_a_data_source_or_from_statistics(tmp_path):
    extractor = get_extractor("smallcnn")
    digits = open_reference("digits", extractor, split="heldout")
    assert digits.name == "digits"
    assert len(digits.images) == len(load_images("digits", split="heldout"))
    digits.save(tmp_path / "digits.npz", extractor)
    stored = open_reference(str(tmp_path / "digits.npz"), extractor, name="file")
    assert (stored.name, stored.images, stored.n(extractor)) == ("file", None, len(digits.images))
    np.savez(tmp_path / "images.npz", images=digits.images)
    assert open_reference(str(tmp_path / "images.npz"), extractor).content_hash == digits.content_hash
    with pytest.raises(UsageError, match="statistics, not images"):
        open_reference(str(tmp_path / "digits.npz"), extractor, resolution=8)
    with pytest.raises(UsageError, match="holds only statistics"):
        stored.frechet(get_extractor("pixels"))


def test_memory_does_not_grow_with_the_number_of_images():
    import tracemalloc

    def peak(n):
        batches = (images(k, 1000) for k in range(n // 1000))
        tracemalloc.start()
        try:
            score_images(batches, {"real": reference}, [get_extractor("pixels")], ["fd"])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    reference = Reference("real", images(1, 2000))
    score_images(images(2, 100), {"real": reference}, [get_extractor("pixels")], ["fd"])
    small, large = peak(5000), peak(50_000)
    assert large < 1.5 * small
    assert large < 50_000 * 16 * 4  # less than the features of all images alone


@pytest.mark.slow
def test_intervals_and_bias_hold_on_real_features():
    """Draws of 2000 of 60,000 Fashion-MNIST images with a little noise, 40 times, against the held-out images."""
    try:
        train = load_images("fashion", split="train", resolution=8).images
        heldout = Reference("heldout", load_images("fashion", split="heldout", resolution=8).images)
    except DataError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    noisy = to_uint8(train / 127.5 - 1 + 0.1 * rng.normal(size=train.shape))
    extractor = get_extractor("smallcnn")
    scores = [
        score_images(noisy[rng.choice(60_000, 2000, replace=False)], {"r": heldout}, [extractor], ["fd"])[0]
        for _ in range(40)
    ]
    values, errors = np.array([s.value for s in scores]), np.array([s.stderr for s in scores])
    spread = values.std(ddof=1)
    assert np.sqrt((errors**2).mean()) == pytest.approx(spread, rel=4 / np.sqrt(2 * 40))
    (whole,) = score_images(noisy, {"r": heldout}, [extractor], ["fd"])
    debiased = np.array([s.value - s.bias for s in scores])
    slack = 4 * debiased.std(ddof=1) / np.sqrt(40)
    assert debiased.mean() == pytest.approx(whole.value - whole.bias, abs=slack)
    assert values.mean() > whole.value + slack  # the control: without the correction n = 2000 reads higher
