"""Time of a training step (forward, backward) of the CIFAR-10 DDPM++ network, 55.7 M parameters, batch 8, one thread.

Only the ratio within one run means something: it says what bf16 brings on this machine. Images and weights are
channels-last in both.
"""

from __future__ import annotations

import pytest
import torch

from ambient_train.diffusion.losses._base import edm_weight
from ambient_train.networks.dropout import dropout_context
from ambient_train.networks.precond import EDMPrecond
from ambient_train.settings.edm_presets import EDM_PRESETS

BATCH = 8


@pytest.mark.parametrize("mode", ["fp32", "bf16"])
def test_cifar10_ddpmpp_step(benchmark, mode: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    preset = EDM_PRESETS["cifar10"]["train"]
    network = EDMPrecond(
        32, 3, model_type=preset["arch"], dropout=preset["dropout"], augment_dim=9, **preset["network"]
    )
    network = network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(network.parameters())
    y, eps = torch.rand(BATCH, 3, 32, 32) * 2 - 1, torch.randn(BATCH, 3, 32, 32)
    sigma = (torch.randn(BATCH) * 1.2 - 1.2).exp()
    labels = torch.zeros(BATCH, 9)

    def step() -> float:
        with dropout_context(0, torch.arange(BATCH)), torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
            denoised = network(y + sigma[:, None, None, None] * eps, sigma, None, labels)
        loss = (edm_weight(sigma)[:, None, None, None] * (denoised - y) ** 2).mean()
        loss.backward()
        for p in parameters:
            p.grad = None
        return float(loss)

    loss = benchmark.pedantic(step, rounds=2, warmup_rounds=1)
    assert loss > 0
    if benchmark.stats is not None:
        benchmark.extra_info["images_per_s"] = BATCH / benchmark.stats.stats.min
        benchmark.extra_info["parameters"] = sum(p.numel() for p in parameters)
