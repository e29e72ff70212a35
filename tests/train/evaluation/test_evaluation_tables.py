"""An extractor and a metric are one file each; what is said of them comes from the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toys import member

from ambient_theory.shared.errors import UsageError
from ambient_train.evaluation.extractors import TABLE as EXTRACTORS
from ambient_train.evaluation.features import default_extractors, get_extractor
from ambient_train.evaluation.metrics import TABLE as METRICS
from ambient_train.evaluation.metrics import metric_name
from ambient_train.evaluation.scores import floor, score_images

MEAN_GREY = '''"""The mean of each channel."""

from ambient_train.evaluation.extractors._base import Extractor, ExtractorKind


class MeanGrey(Extractor):
    name, hash = "mean-grey", "00000000"

    def _features(self, batch):
        return batch.float().mean((2, 3)).numpy()


MEMBER = ExtractorKind(build=lambda path, device: MeanGrey(), default_channels=(2,), default_rank=1)
'''

MEAN_SHIFT = '''"""Distance of the means alone."""

import numpy as np

from ambient_train.evaluation.metrics._base import Metric, Score


class Shift:
    def __init__(self, extractor):
        self.extractor, self.sum, self.n = extractor, 0.0, 0

    def update(self, features, probabilities):
        self.sum, self.n = self.sum + features.sum(0, dtype=float), self.n + len(features)

    def score(self, reference):
        shift = self.sum / self.n - reference.features(self.extractor).mean(0)
        return Score(
            metric="mean-shift", extractor=self.extractor.label, reference=reference.name,
            value=float(np.linalg.norm(shift)), stderr=0.0, n=self.n, n_reference=None, method="exact", df=1,
        )


MEMBER = Metric(collect=Shift, record_names=("mean-shift",))
'''


def images(seed: int, n: int = 100, channels: int = 1, level: int = 128) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(level, 30, (n, channels, 4, 4))
    return np.clip(draw, 0, 255).astype(np.uint8)


def test_an_extractor_is_one_file(tmp_path: Path) -> None:
    with member(EXTRACTORS, "mean-grey", MEAN_GREY, tmp_path):
        assert EXTRACTORS.descriptions["mean-grey"] == "The mean of each channel"
        assert default_extractors(2, 8)[0] == ["pixels", "mean-grey"]
        extractor = get_extractor("mean-grey")
        np.testing.assert_allclose(extractor(images(0)), images(0).mean((2, 3)), rtol=1e-6)
        (score,) = score_images(images(1, channels=2), {"real": images(2, channels=2)}, [extractor], ["fd"])
        assert score.extractor == "mean-grey:00000000"
        with pytest.raises(UsageError, match="mean-grey, pixels"):
            get_extractor("other")
    with pytest.raises(UsageError, match="'mean-grey' is not one of"):
        get_extractor("mean-grey")


def test_a_metric_is_one_file(tmp_path: Path) -> None:
    with member(METRICS, "mean-shift", MEAN_SHIFT, tmp_path):
        real, fake = images(1), images(2, level=140)
        shift, fd = score_images(fake, {"real": real}, [get_extractor("pixels")], ["mean-shift", "fd"])
        assert (shift.metric, fd.metric) == ("mean-shift", "fd")
        expected = np.linalg.norm((fake / 127.5).mean(0) - (real / 127.5).mean(0))
        assert shift.value == pytest.approx(expected, rel=1e-5)
        (low,) = floor(real, real, 50, get_extractor("pixels"), metrics=["mean-shift"])
        assert low.value < shift.value
    with pytest.raises(UsageError, match="mean-shift"):
        metric_name("mean-shift")


def test_metrics_answer_to_their_names_in_records() -> None:
    assert {name: metric_name(name) for name in ("fd", "fid", "kid", "is", "inception-score")} == {
        "fd": "fd",
        "fid": "fd",
        "kid": "kid",
        "is": "inception-score",
        "inception-score": "inception-score",
    }
    better = {name: METRICS[name].lower_is_better for name in METRICS}
    assert better == {"fd": True, "inception-score": False, "kid": True}
    twice = score_images(images(1), {"real": images(2)}, [get_extractor("pixels")], ["fid", "fd"])
    assert [s.metric for s in twice] == ["fd"]


def test_without_a_wish_the_default_metrics_are_computed() -> None:
    scores = score_images(images(1), {"real": images(2)}, [get_extractor("pixels")])
    assert [s.metric for s in scores] == ["fd", "kid"]


def test_descriptions_of_all_members_are_one_line() -> None:
    for table in (EXTRACTORS, METRICS):
        for name, text in table.descriptions.items():
            assert 10 < len(text) < 110, name
    assert set(EXTRACTORS) == {"effnet-lite0", "inception", "pixels", "smallcnn", "torchscript"}
