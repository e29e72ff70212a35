"""The pixels themselves, for images of any kind that are small enough."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from ambient_train.evaluation.extractors._base import MAX_DIM, Device, Extractor, ExtractorKind, Features


class Pixels(Extractor):
    """The pixels themselves, `x / 127.5 - 1`, flattened: d = C H W. The hash names the scaling."""

    name = "pixels"
    hash = hashlib.sha256(b"pixels/1: uint8/127.5-1, C H W flattened").hexdigest()[:8]

    def _features(self, batch: torch.Tensor) -> Features:
        return batch.to("cpu").flatten(1).numpy() / np.float32(127.5) - np.float32(1)


def _too_many(channels: int, side: int) -> str | None:
    count = channels * side**2
    return f"{count} of them are more than a covariance takes ({MAX_DIM})" if count > MAX_DIM else None


def _build(path: str, device: Device) -> Extractor:
    return Pixels()


MEMBER = ExtractorKind(build=_build, default_channels=None, unavailable=_too_many)
