"""Train the embedded feature network `smallcnn` and write it, with its card, into the package.

    python experiments/train_features.py [--epochs 6] [--seed 0] [--output DIRECTORY]

Data: the training split of scikit-learn's digits (8x8) and of Fashion-MNIST, the latter at three resolutions at once:
area-resized to 16x16, and area-resized to 8x8 and then interpolated back, as an 8x8 image of a generator will be.
Held-out images are used for the accuracies on the card only. One core, about three minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text
from ambient_train.data.load import Split, load_images
from ambient_train.evaluation.extractors.smallcnn import DEFINITION, FEATURE_DIM, SmallCNN, canonicalise

DIGITS_SHARE = 0.2
RESOLUTIONS = (8, 16)


class TrainingTwin(nn.Module):
    """`SmallCNN` with batch normalisation after every layer; `folded()` is the same function without it."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = SmallCNN()
        self.norms = nn.ModuleList([nn.BatchNorm2d(c) for c in (32, 48, 64, 96)])
        self.feature_norm = nn.BatchNorm1d(FEATURE_DIM, affine=False)

    def convolutions(self) -> list[nn.Conv2d]:
        return [self.plain.conv1, self.plain.conv2, self.plain.conv3, self.plain.conv4]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for conv, norm in zip(self.convolutions(), self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        features = self.feature_norm(self.plain.features(F.avg_pool2d(x, 2).flatten(1)))
        return features, self.plain.logits(features)

    @torch.no_grad()
    def folded(self) -> SmallCNN:
        """Absorb the running means and variances: w <- w g / sqrt(v + eps), b <- (b - m) g / sqrt(v + eps) + beta."""
        result = SmallCNN()
        result.load_state_dict(self.plain.state_dict())
        layers: list[nn.Conv2d | nn.Linear] = [result.conv1, result.conv2, result.conv3, result.conv4, result.features]
        for layer, norm in zip(layers, [*self.norms, self.feature_norm], strict=True):
            assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert layer.bias is not None
            gain = torch.rsqrt(norm.running_var + norm.eps) * (norm.weight if norm.affine else 1)
            offset = norm.bias if norm.affine else 0
            layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.dim() - 1)))
            layer.bias.copy_((layer.bias - norm.running_mean) * gain + offset)
        return result.eval()


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each canonical image moved by -1, 0 or 1 of the 16 pixels along each axis; the background (-1) moves in."""
    padded = F.pad(images, (1, 1, 1, 1), value=-1.0)
    result = torch.empty_like(images)
    which = torch.randint(9, (len(images),), generator=generator)
    for k in range(9):
        rows = (which == k).nonzero()[:, 0]
        top, left = divmod(k, 3)
        result[rows] = padded[rows, :, top : top + 16, left : left + 16]
    return result


def correlation_penalty(features: torch.Tensor) -> torch.Tensor:
    """Mean squared off-diagonal entry of the features' correlation in the batch: keeps the covariance well conditioned.

    The features are normalised by the batch, so the covariance is the correlation.
    """
    centred = features - features.mean(0)
    covariance = centred.T @ centred / len(features)
    d = covariance.shape[0]
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / (d * (d - 1))


def load(name: str, split: Split, resolution: int | None, first_class: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = load_images(name, split=split, resolution=resolution)
    if data.labels is None:
        raise SystemExit(f"{name} has no labels")
    labels = torch.from_numpy(np.asarray(data.labels).astype(np.int64)) + first_class
    return canonicalise(torch.tensor(data.images)), labels


def train(epochs: float, batch: int, lr: float, penalty: float, seed: int) -> SmallCNN:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    digits, digit_labels = load("digits", "train", None, 0)
    fashion = [load("fashion", "train", resolution, 10) for resolution in RESOLUTIONS]
    fashion_labels = fashion[0][1]
    network = TrainingTwin().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-2)
    from_digits = round(batch * DIGITS_SHARE)
    steps = round(epochs * len(fashion_labels) / (batch - from_digits))
    started = time.monotonic()
    for step in range(steps):
        progress = step / steps
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, progress / 0.05) * 0.5 * (1 + math.cos(math.pi * progress))
        d = torch.randint(len(digits), (from_digits,), generator=generator)
        f = torch.randint(len(fashion_labels), (batch - from_digits,), generator=generator)
        images = torch.cat([digits[d], *(fashion[r][0][part] for r, part in enumerate(f.chunk(len(fashion))))])
        labels = torch.cat([digit_labels[d], fashion_labels[f]])
        features, logits = network(shifted(images, generator))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.05) + penalty * correlation_penalty(features)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 200 == 0 or step == steps - 1:
            print(f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", file=sys.stderr)
    return network.eval().folded()


@torch.no_grad()
def measure(network: SmallCNN) -> dict[str, dict[str, float]]:
    """Held-out accuracy, and the spectrum of the features' covariance, of each data set and resolution."""
    found = {}
    for name, resolution, first in (("digits", None, 0), ("fashion", 8, 10), ("fashion", 16, 10), ("fashion", 28, 10)):
        images, labels = load(name, "heldout", resolution, first)
        features = torch.cat([network(part) for part in images.split(1000)])
        accuracy = (network.logits(features).argmax(1) == labels).double().mean().item()
        eigenvalues = np.linalg.eigvalsh(np.cov(features.double().numpy().T))
        found[f"{name}{'' if resolution is None else f' {resolution}x{resolution}'}"] = {
            "images": len(labels),
            "accuracy": round(accuracy, 4),
            "condition_number": float(f"{eigenvalues[-1] / eigenvalues[0]:.3g}"),
            "participation_ratio": round(float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()), 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=6, help="passes over Fashion-MNIST [6]")
    parser.add_argument("--batch", type=int, default=256, help="images a step [256]")
    parser.add_argument("--lr", type=float, default=4e-3, help="highest learning rate [0.004]")
    parser.add_argument("--penalty", type=float, default=10.0, help="weight of the correlation penalty [10]")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches [0]")
    parser.add_argument("--output", type=Path, default=Path("ambient_train/evaluation/weights"), help="directory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = train(options.epochs, options.batch, options.lr, options.penalty, options.seed)
    data = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    atomic_write_bytes(options.output / "smallcnn.safetensors", data)
    card = {
        "name": "smallcnn",
        "definition": DEFINITION,
        "classes": "scikit-learn digits 0-9, Fashion-MNIST 0-9",
        "training_data": "train splits of digits (8x8) and Fashion-MNIST (area-resized to 8x8 and to 16x16)",
        "parameters": sum(p.numel() for p in network.parameters()),
        "command": f"python experiments/train_features.py --epochs {options.epochs:g} --batch {options.batch} "
        f"--lr {options.lr:g} --penalty {options.penalty:g} --seed {options.seed}",
        "torch": torch.__version__,
        "heldout": measure(network),
    }
    atomic_write_text(options.output / "smallcnn.json", json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
