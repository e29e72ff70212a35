"""Inception-v3 of FID, `inception` or `inception:PATH` (extra `fid`, and a weights file).

Only Inception-v3 with the one published conversion of its weights gives a number called FID; whether ours equals the
published ones to the last digit has not been checked against those weights. torch-fidelity is imported only when the
extractor is asked for. Grey images are repeated to three channels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ambient_theory.shared.errors import DataError, UsageError, first_line
from ambient_train.evaluation.extractors._base import Device, Extractor, ExtractorKind, Features
from ambient_train.evaluation.extractors._weights import as_colour, file_hash, importable, read, tensors

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_DIGEST = "6726825d"
INCEPTION_VARIABLE = "AMBIENT_INCEPTION_WEIGHTS"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
_INSTEAD = "use `effnet-lite0` for colour, `smallcnn` for grey images or `pixels` instead (their distance is not FID)"


class InceptionFeatures(Extractor):
    """Inception-v3 of FID (Heusel et al. 2017) through torch-fidelity: 2048 features and 1008 class probabilities.

    torch-fidelity resizes to 299x299 as TensorFlow did. Probabilities are of logits without bias, as for the Inception
    Score there. The distance is called `fid` only if the weights are the published conversion, else `fd`.
    """

    name = "inception"
    definition = b"inception/1: torch-fidelity FeatureExtractorInceptionV3, 2048 and logits_unbiased"
    dim = 2048
    channels = (1, 3)
    classes = 1008
    batch_size = 50

    def __init__(self, path: str = "", device: Device = "cpu") -> None:
        weights = find_inception_weights(path)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise UsageError(
                f"extractor 'inception' needs the package {error.name}: pip install 'ambient-worth[fid]', or {_INSTEAD}"
            ) from None
        data = read(weights)
        state = tensors(data, str(weights))
        with tempfile.TemporaryDirectory() as directory:
            # torch-fidelity unpickles its file without restriction: it is given a copy that holds tensors only.
            copy = Path(directory, "inception.pth")
            torch.save(state, copy)
            try:
                network = FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(copy)
                )
            except (RuntimeError, KeyError) as error:
                raise DataError(f"{weights}: not Inception-v3 weights ({first_line(error)})") from None
        self._published = hashlib.sha256(data).hexdigest().startswith(INCEPTION_DIGEST)
        self.hash = file_hash(self.definition, data)
        self._device = torch.device(device)
        self._network = network.eval().to(self._device)

    @property
    def metric_name(self) -> str:
        return "fid" if self._published else "fd"

    def _features(self, batch: torch.Tensor) -> Features:
        return self._run(batch)[0].float().cpu().numpy()

    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        features, logits = self._run(batch)
        return features.float().cpu().numpy(), logits.double().softmax(1).cpu().numpy()

    @torch.inference_mode()
    def _run(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, logits = self._network(as_colour(batch.to(self._device)))
        return features, logits


def find_inception_weights(path: str = "") -> Path:
    """The weights file: `path`, else the variable AMBIENT_INCEPTION_WEIGHTS, else PyTorch's hub cache.

    Nothing is downloaded. Raises UsageError that says which file, where to put it and what to use instead.
    """
    hub = Path(torch.hub.get_dir(), "checkpoints", INCEPTION_FILE)
    named = path or os.environ.get(INCEPTION_VARIABLE)
    chosen = Path(named).expanduser() if named else hub
    if chosen.is_file():
        return chosen
    raise UsageError(
        f"extractor 'inception' needs the weights file {INCEPTION_FILE}, which is not at {chosen}: download "
        f"{INCEPTION_URL} and put it at {hub}, or name it as `inception:PATH` or in {INCEPTION_VARIABLE}; or {_INSTEAD}"
    )


def missing(channels: int, side: int) -> str | None:
    """Why `inception` cannot be used here (package, weights file), or None if it can."""
    if absent := [name for name in ("torch_fidelity", "torchvision") if not importable(name)]:
        return f"the package {absent[0]} is not installed (pip install 'ambient-worth[fid]')"
    try:
        find_inception_weights()
    except UsageError as error:
        return str(error)
    return None


MEMBER = ExtractorKind(
    build=InceptionFeatures, path="optional", default_channels=(3,), default_rank=2, unavailable=missing
)
