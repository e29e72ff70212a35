"""Counter-based randomness: known answers, the right laws, independence of the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from ambient_train import stateless


def test_philox_equals_an_independent_implementation() -> None:
    # NumPy has Philox4x64 only; this is Philox4x32-10 in plain Python integers (Salmon et al. 2011)
    def reference(counter: list[int], key: list[int]) -> list[int]:
        c, k, mask = list(counter), list(key), 0xFFFFFFFF
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & mask, (p0 >> 32) ^ c[3] ^ k[1], p0 & mask]
            k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
        return c

    key = (0xA4093822, 0x299F31D0)
    high, low = 0x03707344_13198A2E, 0x85A308D3_243F6A88
    signed = lambda v: v - (1 << 64) if v >= 1 << 63 else v  # noqa: E731
    words = stateless.philox(key, torch.tensor([signed(high)]), torch.tensor([signed(low)]))
    counter = [low & 0xFFFFFFFF, low >> 32, high & 0xFFFFFFFF, high >> 32]
    assert [int(w) for w in words] == reference(counter, list(key))
    # known-answer vector of the Random123 distribution for this counter and key (digits of pi)
    assert [int(w) for w in words] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_normal_numbers_are_standard_normal_and_independent_across_rows() -> None:
    z = stateless.normal(1, "a", torch.arange(4000), (5, 5)).double()
    flat = z.flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > 0.001
    rows = z.reshape(4000, 25)
    for shift in (1, 7):
        correlation = float((rows[:-shift] * rows[shift:]).mean())
        assert abs(correlation) < 4 / np.sqrt(rows[:-shift].numel())
    within = float((rows[:, :-1] * rows[:, 1:]).mean())
    assert abs(within) < 4 / np.sqrt(rows[:, :-1].numel())


def test_uniform_numbers_are_uniform() -> None:
    u = stateless.uniform(1, "a", torch.arange(10_000), 3)
    assert ((u > 0) & (u < 1)).all()
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 0.001


def test_numbers_depend_on_seed_purpose_and_index_and_on_nothing_else() -> None:
    index = torch.arange(10)
    z = stateless.normal(1, "a", index, (3,))
    assert torch.equal(stateless.normal(1, "a", index[4:6], (3,)), z[4:6])
    assert torch.equal(stateless.normal(1, "a", index.flip(0), (3,)), z.flip(0))
    assert not torch.equal(stateless.normal(2, "a", index, (3,)), z)
    assert not torch.equal(stateless.normal(1, "b", index, (3,)), z)
    torch.random.default_generator.manual_seed(0)
    before = torch.rand(1)
    torch.random.default_generator.manual_seed(0)
    stateless.normal(1, "a", index, (3,))
    assert torch.equal(torch.rand(1), before)


def test_order_is_a_permutation_that_nests() -> None:
    ids = torch.arange(100)
    whole = ids[stateless.order(3, "subset", ids)]
    assert sorted(whole.tolist()) == list(range(100))
    some = ids[:60]
    part = some[stateless.order(3, "subset", some)].tolist()
    assert [i for i in whole.tolist() if i < 60] == part


def test_hash_of_ids_is_uniform_and_independent_between_purposes() -> None:
    n = 20000
    u, v = stateless.hash_uniform(np.arange(n), 1), stateless.hash_uniform(np.arange(n), 2)
    for values in (u, v, (u + v) % 1, (u[1:] - u[:-1]) % 1):
        assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert stats.kstest(0.97 * u, "uniform").pvalue < 1e-3  # control: 3 % off


def test_hash_of_ids_keeps_the_numbers_that_every_split_so_far_was_made_of() -> None:
    # SplitMix64's finaliser, twice, in plain Python integers
    def reference(value: int, purpose: int) -> float:
        mask = 2**64 - 1
        z = (value * 0x9E3779B97F4A7C15 + purpose) & mask
        for _ in range(2):
            z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
            z ^= z >> 31
        return (z >> 11) / 2**53

    ids = [0, 1, 2, 1796, 59_999, 2**40]
    got = stateless.hash_uniform(np.array(ids), 0x68656C646F7574)
    assert got.tolist() == [reference(i, 0x68656C646F7574) for i in ids]
    assert [f"{v:.9f}" for v in got[:3]] == ["0.875219344", "0.421058250", "0.993632706"]


def test_mix64_gives_the_published_stream_of_splitmix64_in_numpy_and_in_torch() -> None:
    # the first five outputs for the seed 1234567, as listed with the reference implementation of xoshiro
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = 1234567 + np.arange(1, 6, dtype=np.int64) * stateless.SPLITMIX_STEP
    got = stateless.mix64(states)
    assert got.view(np.uint64).tolist() == published
    assert stateless.mix64(torch.from_numpy(states)).tolist() == got.tolist()
    assert stateless.upper53(got).tolist() == [word >> 11 for word in published]


def test_hashing_ids_needs_no_torch() -> None:
    code = (
        "import sys; from ambient_train import stateless; stateless.hash_uniform([1], 2); print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
