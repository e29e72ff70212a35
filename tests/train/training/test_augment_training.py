"""Training with dropout, augmentation and mirroring: exact resume, whatever the architecture and the micro-batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ambient_train.data.load import load_images
from ambient_train.data.mixture import corrupt
from ambient_train.settings.config import TrainConfig
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState

torch.set_num_threads(1)

NETWORKS: dict[str, dict[str, Any]] = {
    "SongUNet": {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]},
    "DhariwalUNet": {"model_channels": 16, "channel_mult": [1, 4], "num_blocks": 1, "attn_resolutions": []},
}


@pytest.mark.parametrize("arch", NETWORKS)
def test_resume_with_dropout_and_augmentation_is_bitwise_equal(arch: str) -> None:
    settings = {"dropout": 0.2, "augment": 0.3, "xflip": True, "batch": 8, "n_clean": 20, "n_noisy": 20, "sigma_n": 0.2}
    config = TrainConfig(arch=arch, network=NETWORKS[arch], **settings)
    data = corrupt(load_images("digits"), n_clean=20, n_noisy=20, sigma_n=0.2, seed=0)

    def fresh() -> TrainState:
        return TrainState(config, data.shape, 0, torch.device("cpu"))

    whole = fresh()
    losses = [end.loss for end in train(whole, data, 32)]
    first, second = fresh(), fresh()
    for _ in train(first, data, 16):
        pass
    second.restore(first.checkpoint())
    torch.rand(3)  # a global draw in between changes nothing
    assert [end.loss for end in train(second, data, 32)] == losses[2:]
    for (name, a), b in zip(whole.network.named_parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b), name
    micro = fresh()
    accumulated = [end.loss for end in train(micro, data, 32, micro_batch=2)]
    torch.testing.assert_close(torch.tensor(accumulated), torch.tensor(losses), rtol=1e-3, atol=0)
    assert whole.network.model.map_augment is not None
