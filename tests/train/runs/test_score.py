"""What a record says of how its network was trained: the same for every mixture, never the same for two methods."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run

from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import floor
from ambient_train.runs.run import execute
from ambient_train.runs.score import _FLOORS, Subject, floors_of, memorisation_of, method_of, summary_of
from ambient_train.settings.evaluation import EvalConfig


@pytest.mark.parametrize("change", [{"n_clean": 3}, {"n_noisy": 7}, {"sigma_n": 0.5}, {"seed": 4}, {"data": "fashion"}])
def test_the_data_and_the_seed_are_no_part_of_the_method(change: dict[str, Any]) -> None:
    config = tiny_run.config()
    assert method_of(replace(config, **change)) == method_of(config)


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 0.1},
        {"weight": "x0"},
        {"lr": 0.5},
        {"batch": 32},
        {"network": {"model_channels": 8}},
        {"ema_ramp": 0.5},
    ],
)
def test_every_setting_of_the_training_is(change: dict[str, Any]) -> None:
    config = tiny_run.config()
    assert method_of(replace(config, **change)) != method_of(config)


@pytest.mark.parametrize(
    ("clean", "noisy", "regime", "sigma_n"),
    [(96, 0, "clean", None), (30, 66, "mixture", 0.3), (0, 96, "noisy-only", 0.3)],
)
def test_a_subject_names_its_regime_and_the_noise_of_its_data(
    clean: int, noisy: int, regime: str, sigma_n: float | None
) -> None:
    subject = Subject.of_job(tiny_run.job(n_clean=clean, n_noisy=noisy))
    assert (subject.regime, subject.sigma_n, subject.share) == (regime, sigma_n, noisy / 96)


def test_records_say_whether_the_clean_images_are_copied_where_that_was_asked_and_there_are_any(tmp_path: Path) -> None:
    asked = replace(tiny_run.EVALUATION, memorisation=True)

    def extras(name: str, evaluation: EvalConfig, **amounts: int) -> list[Any]:
        job = replace(tiny_run.job(tiny_run.BATCH, **amounts), evaluation=evaluation)
        (records,) = execute(job, tmp_path / name).values()
        return [r.extra.get("memorisation") for r in records if r.metric == "fd"]

    (found, *_) = extras("mixture", asked)
    assert found["extractor"].startswith("pixels")
    assert 0 <= found["distance"] <= 1
    assert found["expected"] == pytest.approx(0.05, abs=0.01)
    assert set(extras("noisy", asked, n_clean=0, n_noisy=96)) == {None}
    assert set(extras("not asked", tiny_run.EVALUATION)) == {None}


def test_a_scoring_without_it_says_of_itself_what_it_said_before() -> None:
    asked = replace(tiny_run.EVALUATION, memorisation=True)
    assert "memorisation" not in tiny_run.EVALUATION.to_dict()
    assert {**tiny_run.EVALUATION.to_dict(), "memorisation": True} == asked.to_dict()
    assert EvalConfig.from_dict(asked.to_dict()) == asked


def test_what_a_record_keeps_of_copies_is_what_was_measured() -> None:
    images = tiny_run.source().images
    own, heldout = images[:48], Reference("heldout-clean", images[48:])
    pixels = [get_extractor("pixels")]
    copied = memorisation_of(own[:40], own, heldout, pixels)
    assert copied is not None
    assert copied.copies
    assert copied.ratio.share > copied.ratio.expected
    kept = summary_of(copied)
    assert (kept["distance"], kept["ratio"], kept["copies"]) == (copied.distance.share, copied.ratio.share, True)
    fresh = memorisation_of(images[48:88], own, heldout, pixels)
    assert fresh is not None
    assert not summary_of(fresh)["copies"]  # control
    assert memorisation_of(own, own[:1], heldout, pixels) is None


def test_floors_are_those_of_the_data_set_that_is_asked_for_whatever_lay_in_its_place_in_memory() -> None:
    pixels, before = get_extractor("pixels"), len(_FLOORS)
    for k in range(40):  # two kinds of data in turn, each freed before the next is made
        rng = np.random.default_rng(k)
        images = rng.integers(0, 256 if k % 2 else 64, (160, 1, 4, 4)).astype(np.uint8)
        train, heldout = Reference("train-clean", images[:80]), Reference("heldout-clean", images[80:])
        found = floors_of(train, {"heldout-clean": heldout}, [pixels], 60, ("fd",))
        (fresh,) = floor(images[:80], heldout, 60, pixels, metrics=("fd",))
        assert found == {("fd", pixels.label, "heldout-clean"): fresh.value}
        assert len(_FLOORS) == before + 1  # kept as long as its data set is there, and no longer
        del train, heldout
        gc.collect()
        assert len(_FLOORS) == before


def test_floors_are_computed_once_for_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (160, 1, 4, 4)).astype(np.uint8)
    heldout, pixels, made = Reference("heldout-clean", images[80:]), get_extractor("pixels"), []
    monkeypatch.setattr("ambient_train.runs.score.floor", lambda *a, **k: made.append(a) or floor(*a, **k))
    for asked in (60, 60, 70):
        floors_of(Reference("train-clean", images[:80]), {"heldout-clean": heldout}, [pixels], asked, ("fd",))
    assert len(made) == 2  # the same training images again are not measured again, and another n is
