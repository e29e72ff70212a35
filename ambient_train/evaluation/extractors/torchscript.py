"""Features of a TorchScript file, `torchscript:PATH`.

Such a file holds a program of its own, in TorchScript's closed language; it cannot run Python code.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from ambient_theory.shared.errors import DataError, first_line
from ambient_train.evaluation.extractors._base import Device, Extractor, ExtractorKind, Features
from ambient_train.evaluation.extractors._weights import as_colour, file_hash, read


class TorchScriptFeatures(Extractor):
    """Features of a TorchScript file: the module maps uint8 images [N, C, H, W] to features [N, d].

    A module whose `forward` has an argument `return_features` (as the Inception-v3 file of StyleGAN has) is called with
    `return_features=True` and colour images. The hash is that of the file.
    """

    batch_size = 100

    def __init__(self, path: str, device: Device = "cpu") -> None:
        data = read(Path(path).expanduser())
        problem = None
        try:
            self._module = torch.jit.load(io.BytesIO(data), map_location=device).eval()
            arguments = {argument.name for argument in self._module.forward.schema.arguments}
        except Exception as error:  # its reader raises whatever its C++ does
            problem = first_line(error)
        if problem is not None:
            raise DataError(f"{path}: not a TorchScript file ({problem})")
        self.name = f"torchscript-{Path(path).stem}"
        self.hash = file_hash(b"torchscript/1", data)
        self._device = torch.device(device)
        self._keywords: dict[str, Any] = {"return_features": True} if "return_features" in arguments else {}
        if self._keywords:
            self.channels = (1, 3)

    @torch.inference_mode()
    def _features(self, batch: torch.Tensor) -> Features:
        x = batch.to(self._device)
        try:
            out = self._module(as_colour(x) if self._keywords else x, **self._keywords)
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise DataError(
                f"{self.name} failed on uint8 images of shape {tuple(x.shape)}: {lines[-1].strip() if lines else error}"
            ) from None
        if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != len(batch):
            shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise DataError(f"{self.name} must give features [N, d], gave {shape} for {len(batch)} images")
        return out.float().cpu().numpy()


MEMBER = ExtractorKind(build=TorchScriptFeatures, path="required")
