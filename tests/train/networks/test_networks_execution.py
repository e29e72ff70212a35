"""Precision, threads and memory: each rule once."""

from __future__ import annotations

import pytest
import torch

from ambient_theory.shared.errors import UsageError
from ambient_train.networks.execution import autocast, one_thread_for_small, recompute_blocks
from ambient_train.networks.precond import EDMPrecond


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_products_are_computed_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    a = torch.ones(4, 4)
    with autocast("cpu", precision):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="fp32, tf32, bf16, fp16"):
        autocast("cpu", "fp8")


def test_only_the_small_network_on_a_cpu_is_held_to_one_thread() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        one_thread_for_small("SongUNet", "cpu")
        one_thread_for_small("SmallUNet", "cuda")
        assert torch.get_num_threads() == 2
        one_thread_for_small("SmallUNet", torch.device("cpu"))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_network_without_blocks_to_recompute_says_so() -> None:
    small = EDMPrecond(8, 1, model_type="SmallUNet", model_channels=8, emb_channels=8)
    with pytest.raises(UsageError, match="SmallUNet has no blocks"):
        recompute_blocks(small)
