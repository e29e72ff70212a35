"""Draws of diffusion levels: EDM's law is kept for every mixture, and no image is used below its own noise."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.draws import TABLE
from ambient_train.diffusion.noise_levels import P_MEAN, P_STD, LevelTable, draw, epoch_position

LAW = stats.norm(P_MEAN, P_STD)
N = 20_000


def mixture(n: int, share: float, level: float = 0.2) -> torch.Tensor:
    noisy = round(n * share)
    return torch.cat([torch.zeros(n - noisy), torch.full((noisy,), level, dtype=torch.float64)]).double()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_sigma_first_keeps_edms_law_for_every_mixture(share: float) -> None:
    levels = mixture(1000, share)
    index, sigma = draw(TABLE["sigma-first"], 0, torch.arange(N), levels)
    assert stats.kstest(sigma.log().numpy(), LAW.cdf).pvalue > 0.001
    assert (sigma > 1.05 * levels[index]).all()
    high = sigma > 0.5  # far above the noise all images are equally likely
    expected = share * int(high.sum())
    spread = math.sqrt(max(expected * (1 - share), 1))
    assert abs(int((levels[index[high]] > 0).sum()) - expected) < 4 * spread


def test_image_first_does_not_keep_edms_law() -> None:  # negative control of the test above
    levels = mixture(1000, 0.9)
    index, sigma = draw(TABLE["image-first"], 0, torch.arange(N), levels)
    assert stats.kstest(sigma.log().numpy(), LAW.cdf).pvalue < 1e-6
    assert (sigma > 1.05 * levels[index]).all()


@pytest.mark.parametrize("rule", ["sigma-first", "image-first"])
def test_all_noisy_set_ends_with_the_truncated_law(rule: str) -> None:
    levels = mixture(100, 1.0, level=0.6)
    _, sigma = draw(TABLE[rule], 1, torch.arange(N), levels)
    bound = 1.05 * 0.6
    assert float(sigma.min()) > bound
    tail = LAW.sf(math.log(bound))
    cdf = lambda t: 1 - LAW.sf(t) / tail  # noqa: E731
    assert stats.kstest(sigma.log().numpy(), cdf).pvalue > 0.001


def test_truncation_far_in_the_tail_stays_finite_and_above_its_bound() -> None:
    _, sigma = draw(TABLE["sigma-first"], 0, torch.arange(2000), torch.full((3,), 500.0, dtype=torch.float64))
    assert torch.isfinite(sigma).all()
    assert float(sigma.min()) > 1.05 * 500


@pytest.mark.parametrize("rule", list(TABLE))
def test_one_clean_image_is_enough(rule: str) -> None:
    index, sigma = draw(TABLE[rule], 0, torch.arange(50), torch.zeros(1).double())
    assert index.tolist() == [0] * 50
    assert torch.isfinite(sigma).all()
    mixed, sigma = draw(TABLE[rule], 0, torch.arange(4000), torch.tensor([0.0, *[0.6] * 99]).double())
    assert 0 < int((mixed == 0).sum()) < 4000


def test_clean_first_brings_noisy_images_in_over_the_epochs_of_the_clean_ones() -> None:
    n_clean, n_noisy, epochs = 50, 150, 40.0
    levels = torch.cat([torch.zeros(n_clean), torch.full((n_noisy,), 0.3)]).double()
    end = int(epochs * n_clean)
    for begin in (0, end // 4, 3 * end // 4, 2 * end):
        ramp, found = min(1.0, (begin + 9.5) / end), []
        for seed in range(400):
            index, sigma = draw(TABLE["clean-first"], seed, begin + torch.arange(20), levels, epochs=epochs)
            plain = draw(TABLE["sigma-first"], seed, begin + torch.arange(20), levels)[1]
            assert torch.equal(sigma, plain)  # EDM's law of levels at all times
            assert int(index[sigma <= 0.3 * 1.05].max()) < n_clean
            found.append(index[sigma > 0.3 * 1.05])
        above = torch.cat(found)
        expected = ramp * n_noisy / (n_clean + n_noisy)
        stderr = (expected * (1 - expected) / len(above)) ** 0.5
        assert abs(float((above >= n_clean).double().mean()) - expected) < 3 * stderr
        used = torch.bincount(above[above < n_clean], minlength=n_clean)
        assert stats.chisquare(used.numpy()).pvalue > 1e-3  # each clean image as often as any other


def test_clean_first_without_a_ramp_or_a_mixture_is_sigma_first() -> None:
    mixed, noisy = mixture(64, 0.5), torch.full((64,), 0.3).double()
    for levels, epochs in ((mixed, 0.0), (noisy, 40.0), (0 * noisy, 40.0)):
        one, two = (draw(TABLE[x], 3, torch.arange(99), levels, epochs=epochs) for x in ("clean-first", "sigma-first"))
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def test_papers_draw_puts_the_known_share_exactly_on_the_noise_level() -> None:
    levels = torch.full((N,), 0.2, dtype=torch.float64)
    _, sigma = draw(TABLE["paper"], 0, torch.arange(N), levels)
    share = float((sigma == 0.2).double().mean())
    expected = LAW.cdf(math.log(0.2))
    assert expected == pytest.approx(0.3665, abs=5e-5)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / N)
    assert float(sigma.min()) == 0.2


def test_a_draw_says_truly_whether_it_reaches_the_noise_level() -> None:
    levels = torch.full((50,), 0.2, dtype=torch.float64)
    for rule in TABLE:
        _, sigma = draw(TABLE[rule], 0, torch.arange(2000), levels, buffer=1.0)
        assert bool((sigma == 0.2).any()) == TABLE[rule].reaches_lowest_level
        assert float(sigma.min()) >= 0.2


def test_draws_depend_on_the_sample_index_alone() -> None:
    levels = mixture(64, 0.5)
    for rule in TABLE:
        whole = draw(TABLE[rule], 5, torch.arange(200), levels)
        parts = [draw(TABLE[rule], 5, part, levels) for part in torch.arange(200).split(7)]
        assert torch.equal(whole[0], torch.cat([p[0] for p in parts]))
        assert torch.equal(whole[1], torch.cat([p[1] for p in parts]))
        assert not torch.equal(whole[1], draw(TABLE[rule], 6, torch.arange(200), levels)[1])


def test_every_epoch_visits_every_image_once() -> None:
    order = epoch_position(0, torch.arange(30), 10)
    for epoch in order.split(10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert order[:10].tolist() != order[10:20].tolist()


def test_admissible_counts_are_strict() -> None:
    table = LevelTable.of(torch.tensor([0.0, 0.0, 0.2, 0.6, 0.6]).double())
    sigma = torch.tensor([1e-9, 0.2, 0.2001, 0.6, 1.0]).double()
    assert table.admissible(sigma, 1.0).tolist() == [2, 2, 3, 3, 5]
    assert table.counts.tolist() == [2, 1, 2]


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="sigma-first"):
        TABLE["other"]
    with pytest.raises(UsageError, match="buffer"):
        draw(TABLE["sigma-first"], 0, torch.arange(2), torch.zeros(2).double(), buffer=0.9)
    with pytest.raises(UsageError, match="no image"):
        draw(TABLE["sigma-first"], 0, torch.arange(2), torch.zeros(0).double())
