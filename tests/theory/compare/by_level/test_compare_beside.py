"""Every mixture by itself: clean images that do as well in nats; intervals hold the truth, whatever the law."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from level_sweeps import LEVELS, SIGMA, level_sweep, noise, one_good, two_goods

from ambient_theory.compare.by_level.beside import ABOVE, ALL, Beside, beside
from ambient_theory.compare.by_level.levels import LevelTable, level_tables
from ambient_theory.compare.by_level.words import beside_rows, beside_sentence, beside_short
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.words import span
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import Record


def table(rows: list[Record]) -> LevelTable:
    [found] = level_tables(rows)
    return found


def of(found: list[Beside], n_clean: int, n_noisy: int, part: str) -> Beside:
    [own] = [b for b in found if (b.cell.n_clean, b.cell.n_noisy, b.part) == (n_clean, n_noisy, part)]
    return own


def test_without_scatter_a_mixture_that_does_as_well_as_a_clean_size_is_worth_that_and_has_no_interval() -> None:
    found = beside(table(level_sweep(None, one_good(0.5))))
    for part in (ALL, ABOVE):
        own = of(found, 100, 200, part)
        assert own.equivalent.value == pytest.approx(200, rel=1e-9)
        assert own.worth.value == pytest.approx(0.5, rel=1e-9)
        assert own.times.value == pytest.approx(2.0, rel=1e-9)
        assert own.worth.low is None
        assert math.isinf(own.width)
    assert len(found) == 2 * 6


def test_two_goods_differ_between_all_levels_and_those_above_the_noise() -> None:
    found = beside(table(level_sweep(None, two_goods(0.5, 0.2, 1.0))))
    assert of(found, 100, 200, ABOVE).worth.value == pytest.approx(0.5, rel=1e-9)
    assert of(found, 100, 200, ALL).worth.value < 0.2  # nats weigh the levels below most


def test_what_is_better_than_every_clean_model_has_only_a_lower_end() -> None:
    rows = level_sweep(np.random.default_rng(0), one_good(4.0), mixed=((400, 1000),))
    own = of(beside(table(rows)), 400, 1000, ALL)
    assert math.isinf(own.worth.value)
    assert own.worth.low is not None
    assert 0 < own.worth.low < 4


def seeded(rows: list[Record], rng: np.random.Generator, scatter: float) -> list[Record]:
    """The same, with all models of a seed moved alike."""
    shift = {s: noise(rng, scatter, len(LEVELS)) for s in {r.seed for r in rows}}
    return [replace(r, value=r.value * float(np.exp(shift[r.seed][LEVELS.index(r.level)]))) for r in rows]


@pytest.mark.parametrize("exponent", [0.0, 2.0])
@pytest.mark.parametrize("sweeps", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_intervals_hold_the_truth_as_often_as_they_say(sweeps: int, exponent: float) -> None:
    """With the scatter of small models as that of large ones, and with more of it.

    Sweeps whose seeds move all their models alike; the mixtures are worth exactly what clean sizes are, so that
    interpolation has no part. Standard error of a share of .9: 3 points of 100, 1.5 of 400; the two mixtures and parts
    share the clean curve and are no more than one draw. Told another worth, the intervals hold it in few draws."""
    rng = np.random.default_rng(1)
    held = dict.fromkeys(((100, ALL), (100, ABOVE), (200, ALL), (200, ABOVE)), 0)
    wrong = 0
    for _ in range(sweeps):
        rows = level_sweep(rng, one_good(0.5), mixed=((100, 200), (200, 400)), scatter=0.01, exponent=exponent)
        found = beside(table(seeded(rows, rng, 0.05)), confidence=0.9)
        for (n, part), _count in list(held.items()):
            held[n, part] += of(found, n, 2 * n, part).worth.contains(0.5) is True
        wrong += of(found, 100, 200, ALL).worth.contains(0.3) is True
    for share in held.values():
        assert abs(share / sweeps - 0.9) < 3 * math.sqrt(0.09 / sweeps)
    assert wrong < 0.05 * sweeps


def test_controls_are_left_out_and_nothing_is_read_without_a_clean_curve() -> None:
    rows = level_sweep(None, one_good(1.0), sigmas=(0.001, SIGMA))
    assert {b.cell.sigma_n for b in beside(table(rows))} == {SIGMA}
    with pytest.raises(DataError, match="no curve to read a mixture on"):
        beside(table([r for r in rows if r.n_noisy]))


def test_of_each_noise_level_the_most_and_the_least_that_a_noisy_image_is_worth_is_said() -> None:
    mixed = ((100, 200), (200, 200), (400, 200))
    rows = level_sweep(np.random.default_rng(3), one_good(0.5), mixed=mixed, sigmas=(0.1, SIGMA), scatter=0.003)
    worth = {100: 0.6, 200: 0.5, 400: -0.2}
    found = [
        replace(b, worth=Interval(w, w - 0.1, w + 0.1))
        for b in beside(table(rows))
        if b.part == ALL and (w := worth[b.cell.n_clean])
    ]
    said = beside_sentence(found)
    assert [said.count(f"{n} clean + 200 noisy") for n in worth] == [2, 0, 2]
    assert f"do as well as {span(found[0].equivalent)} clean ones (price 1.67 [1.43, 2.00]); 400 clean" in said
    assert said.count("(price none, they do harm)") == 2
    unknown = [replace(b, worth=Interval(0.5, None, None)) for b in found]
    assert beside_sentence(unknown) == ""
    alone = [b for b in found if b.cell.n_clean == 100]
    assert beside_sentence(alone).count("do as well as") == 2


def test_images_that_do_harm_have_no_price() -> None:
    rows = level_sweep(np.random.default_rng(2), lambda level, n, m, s: 0.5 * n, mixed=((400, 1000),), scatter=0.002)
    found = beside(table(rows))
    assert [row[5] for row in beside_rows(found)] == ["none, they do harm"] * 2
    assert beside_short(found)[0] == ["400 + 1,000", ALL, beside_rows(found)[0][3], "none, they do harm"]
