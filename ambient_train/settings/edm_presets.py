"""EDM's published settings for its three data sets (Karras et al. 2022, arXiv 2206.00364, Appendix F).

Plain dictionaries with the fields of `presets.Preset`. `train` has the names of `TrainConfig`, `sampler` those of
`SamplerConfig`; durations and half-lives are in images. EDM's FFHQ-64 setting is the one for CelebA-64.
"""

from __future__ import annotations

from typing import Any

EDM_ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpmpp": (
        "SongUNet",
        {
            "embedding_type": "positional",
            "encoder_type": "standard",
            "decoder_type": "standard",
            "channel_mult_noise": 1,
            "resample_filter": [1, 1],
            "model_channels": 128,
            "channel_mult": [2, 2, 2],
        },
    ),
    "ncsnpp": (
        "SongUNet",
        {
            "embedding_type": "fourier",
            "encoder_type": "residual",
            "decoder_type": "standard",
            "channel_mult_noise": 2,
            "resample_filter": [1, 3, 3, 1],
            "model_channels": 128,
            "channel_mult": [2, 2, 2],
        },
    ),
    "adm": ("DhariwalUNet", {"model_channels": 192, "channel_mult": [1, 2, 3, 4]}),
}
"""Names of the reference's `--arch`: class and keywords, with its default width and multipliers."""

_ADAM = {"lr_ramp_nimg": 10_000_000, "ema_ramp": 0.05, "weight_decay": 0.0, "xflip": False}

EDM_PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "purpose": "CIFAR-10, other colour images at 32 pixels: days on several GPUs",
        "shape": (3, 32, 32),
        "parameters": 55_733_891,
        "train": {
            **_ADAM,
            "arch": "SongUNet",
            "network": EDM_ARCHITECTURES["ddpmpp"][1],
            "cond": False,
            "batch": 512,
            "lr": 1e-3,
            "ema_halflife_nimg": 500_000,
            "dropout": 0.13,
            "augment": 0.12,
            "precision": "auto",
        },
        "sampler": {"steps": 18},
        "duration_nimg": 200_000_000,
        "n_eval": 50_000,
    },
    "celeba64": {
        "purpose": "CelebA, other colour images at 64 pixels: days on several GPUs",
        "shape": (3, 64, 64),
        "parameters": 61_805_571,
        "train": {
            **_ADAM,
            "arch": "SongUNet",
            "network": {**EDM_ARCHITECTURES["ddpmpp"][1], "channel_mult": [1, 2, 2, 2]},
            "cond": False,
            "batch": 256,
            "lr": 2e-4,
            "ema_halflife_nimg": 500_000,
            "dropout": 0.05,
            "augment": 0.15,
            "precision": "auto",
        },
        "sampler": {"steps": 40},
        "duration_nimg": 200_000_000,
        "n_eval": 50_000,
    },
    "imagenet64": {
        "purpose": "ImageNet at 64 pixels with its 1,000 classes: weeks on many GPUs",
        "shape": (3, 64, 64),
        "parameters": 295_899_267,
        "train": {
            **_ADAM,
            "arch": "DhariwalUNet",
            "network": EDM_ARCHITECTURES["adm"][1],
            "cond": True,
            "batch": 4096,
            "lr": 1e-4,
            "ema_halflife_nimg": 50_000_000,
            "dropout": 0.10,
            "augment": 0.0,
            "precision": "auto",
            "loss_scale": 100.0,
        },
        "sampler": {"steps": 256, "churn": 40.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003},
        "duration_nimg": 2_500_000_000,
        "n_eval": 50_000,
    },
}
