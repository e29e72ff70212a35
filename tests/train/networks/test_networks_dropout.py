"""Dropout with keyed masks: a function of (seed, sample, layer) and of nothing else, with the right law."""

from __future__ import annotations

import pytest
import torch
from edm_formula import FIXTURES, fixture_config, load_formula_weights
from safetensors.torch import load_file

from ambient_train.networks.dropout import KeyedDropout, dropout_context, kept_labels, keyed_bits
from ambient_train.networks.precond import EDMPrecond

torch.set_num_threads(1)


def masks(seed: int, ids: torch.Tensor, layer: int = 0, p: float = 0.13, shape: tuple = (8, 16, 16)) -> torch.Tensor:
    """1 where kept."""
    with dropout_context(seed, ids):
        return (KeyedDropout(p, layer)(torch.ones(len(ids), *shape)) > 0).float()


def test_mask_depends_on_the_sample_not_on_its_batch() -> None:
    ids = torch.tensor([7, 2**40, 0, 3])
    whole = masks(1, ids)
    assert torch.equal(whole, torch.cat([masks(1, ids[:1]), masks(1, ids[1:])]))
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(whole[order], masks(1, ids[order]))


def test_mask_does_not_depend_on_memory_layout_or_precision() -> None:
    x = torch.rand(3, 8, 4, 4) + 1
    layer = KeyedDropout(0.4, 2)
    with dropout_context(1, torch.arange(3)):
        plain = layer(x)
        assert torch.equal(plain, layer(x.contiguous(memory_format=torch.channels_last)))
        assert torch.equal(plain == 0, layer(x.bfloat16()) == 0)


@pytest.mark.parametrize("p", [0.05, 0.13, 0.5])
def test_share_of_zeros_is_p_and_the_mean_is_kept(p: float) -> None:
    kept = masks(2, torch.arange(64), p=p, shape=(32, 16, 16))
    n = kept.numel()
    assert abs((1 - kept.mean()).item() - p) < 5 * (p * (1 - p) / n) ** 0.5 + 2**-17
    with dropout_context(2, torch.arange(64)):
        y = KeyedDropout(p)(torch.ones(64, 32, 16, 16))
    assert abs(y.mean().item() - 1) < 5 * (p / (1 - p) / n) ** 0.5


def test_masks_of_neighbours_in_every_coordinate_are_uncorrelated() -> None:
    n = 48
    base = masks(3, torch.arange(n), p=0.5) - 0.5
    others = {
        "sample": masks(3, torch.arange(n) + 1, p=0.5),
        "seed": masks(4, torch.arange(n), p=0.5),
        "layer": masks(3, torch.arange(n), layer=1, p=0.5),
    }
    bound = 5 / base.numel() ** 0.5  # correlation of independent fair coins has standard error 1/sqrt(n)
    for name, other in others.items():
        assert abs((4 * base * (other - 0.5)).mean().item()) < bound, name
    for shift in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (4, 0, 0), (1, 1, 1)):
        assert abs((4 * base * base.roll(shift, (1, 2, 3))).mean().item()) < bound, shift
    assert (4 * base * base).mean() == 1  # the statistic is 1 for equal masks


def test_sixteen_bit_words_are_uniform_and_their_pairs_independent() -> None:
    with dropout_context(5, torch.arange(256)) as keys:
        bits = keyed_bits(keys[:, 3], 4096).to(torch.int64) + 32768
    high = bits >> 12
    expected = bits.numel() / 16
    chi2 = ((torch.bincount(high.flatten(), minlength=16) - expected) ** 2 / expected).sum()
    assert chi2 < 15 + 5 * 30**0.5  # mean 15, standard deviation sqrt(30)
    pairs = (high[:, 0::2] * 16 + high[:, 1::2]).flatten()
    expected = pairs.numel() / 256
    chi2 = ((torch.bincount(pairs, minlength=256) - expected) ** 2 / expected).sum()
    assert chi2 < 255 + 5 * 510**0.5


def test_evaluation_mode_is_the_identity_and_training_needs_keys() -> None:
    x = torch.randn(2, 4, 2, 2)
    layer = KeyedDropout(0.5)
    assert layer.eval()(x) is x
    with pytest.raises(RuntimeError, match="dropout_context"):
        layer.train()(x)
    with dropout_context(0, torch.arange(3)), pytest.raises(ValueError, match="3 samples, batch of 2"):
        layer(x)
    assert KeyedDropout(0.0).train()(x) is x


def test_contexts_nest_and_end() -> None:
    with dropout_context(0, torch.arange(2)) as outer:
        with dropout_context(0, torch.arange(2), purpose="second pass") as inner:
            assert not torch.equal(outer, inner)
        assert torch.equal(masks(0, torch.arange(2)), masks(0, torch.arange(2)))
    with pytest.raises(RuntimeError):
        KeyedDropout(0.5)(torch.ones(1, 1))


def test_gradient_passes_exactly_where_the_mask_keeps() -> None:
    x = torch.randn(4, 8, 4, 4, requires_grad=True)
    with dropout_context(1, torch.arange(4)):
        y = KeyedDropout(0.25)(x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 1 / 0.75))


def test_network_in_training_does_not_depend_on_the_split_into_micro_batches() -> None:
    network = EDMPrecond(**fixture_config("ddpmpp")).train()
    load_formula_weights(network)
    io = load_file(FIXTURES / "ddpmpp.io.safetensors")
    ids = torch.tensor([10, 11, 12, 13])

    def run(rows: slice) -> torch.Tensor:
        with dropout_context(9, ids[rows]):
            return network(io["x"][rows], io["sigma"][rows], None, io["augment_labels"][rows])

    with torch.no_grad():
        torch.testing.assert_close(torch.cat([run(slice(0, 1)), run(slice(1, 4))]), run(slice(0, 4)))
        assert not torch.equal(run(slice(0, 4)), network.eval()(io["x"], io["sigma"], None, io["augment_labels"]))
    indices = [m.layer_index for m in network.modules() if isinstance(m, KeyedDropout)]
    assert indices == list(range(len(indices)))
    assert len(indices) > 5


def test_label_dropout_zeroes_its_share_of_the_samples() -> None:
    with dropout_context(11, torch.arange(20_000)) as keys:
        kept = kept_labels(torch.ones(20_000, 3), 0.1, keys)
    assert torch.equal(kept.amin(1), kept.amax(1))  # whole rows
    assert abs(kept[:, 0].mean().item() - 0.9) < 5 * (0.09 / 20_000) ** 0.5


def test_keys_and_masks_are_pinned() -> None:
    """A change of these numbers breaks the exact resume of every run in progress."""
    with dropout_context(0, torch.tensor([0, 1])) as keys:
        assert keys[:, :2].tolist() == [
            [8598924558131308563, -6334521584958234282],
            [-5488102344412955161, -6903249952586154751],
        ]
        assert keyed_bits(keys[:, 0], 4)[0].tolist() == [-29891, -31705, -13611, 26352]
