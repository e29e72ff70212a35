"""The small network: its dropout is that of the others, and none at probability 0."""

from __future__ import annotations

import torch

from ambient_train.networks.dropout import KeyedDropout, dropout_context
from ambient_train.networks.precond import EDMPrecond

torch.set_num_threads(1)


def network(**settings: float) -> EDMPrecond:
    """A small network whose last layers are not zero, so that dropout can be seen at its output."""
    made = EDMPrecond(8, 1, model_type="SmallUNet", model_channels=8, emb_channels=16, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return made


X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
SIGMA = torch.full((6,), 0.7)


def test_dropout_of_zero_is_bit_equal_to_none_and_needs_no_keys() -> None:
    plain, zero = network().train(), network(dropout=0.0).train()
    assert plain.state_dict().keys() == zero.state_dict().keys()
    assert torch.equal(plain(X, SIGMA), zero(X, SIGMA))
    assert torch.equal(plain(X, SIGMA), network(dropout=0.5).eval()(X, SIGMA))


def test_every_block_has_a_mask_of_its_own_keyed_by_the_sample() -> None:
    dropping = network(dropout=0.3).train()
    indices = [m.layer_index for m in dropping.modules() if isinstance(m, KeyedDropout)]
    assert indices == list(range(5))  # two levels down, the middle, two levels up

    def run(rows: slice, seed: int = 4) -> torch.Tensor:
        with dropout_context(seed, torch.arange(6)[rows]):
            return dropping(X[rows], SIGMA[rows])

    with torch.no_grad():
        whole = run(slice(0, 6))
        torch.testing.assert_close(torch.cat([run(slice(0, 2)), run(slice(2, 6))]), whole)
        assert not torch.allclose(whole, run(slice(0, 6), seed=5))
        assert not torch.allclose(whole, dropping.eval()(X, SIGMA))


def test_dropout_is_unbiased_to_first_order() -> None:
    """With a small probability the mean over masks is the output without, up to terms of the second order."""
    dropping = network(dropout=0.02).train()
    n = 4000
    with torch.no_grad(), dropout_context(0, torch.arange(n)):
        many = dropping(X[:1].expand(n, -1, -1, -1), SIGMA[:1].expand(n))
        plain = dropping.eval()(X[:1], SIGMA[:1])
    stderr = many.std(0) / n**0.5
    assert float(((many.mean(0) - plain[0]).abs() / stderr).max()) < 6
    biased = many * 0.98  # the control: without the division by 1 - p
    assert float(((biased.mean(0) - plain[0]).abs() / stderr).max()) > 6
