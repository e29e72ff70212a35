"""Denoise arrays with a model that was trained on noisy images: posterior means, and what they gain in decibels.

python examples/denoise_arrays.py
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from ambient_train import load, train


def psnr(images: np.ndarray, originals: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, for a range of 2 ([-1, 1])."""
    return float(10 * np.log10(4 / np.mean((images - originals) ** 2)))


def main(outdir: Path, duration: str = "20k", sigma: float = 0.6) -> float:
    run = train(data="digits", sigma=sigma, corruption=0.9, duration=duration, evaluation={"n": 40}, outdir=outdir)
    model = load(run.directory)
    print(model)
    originals = (load_digits().images[:, None] / 8 - 1).astype(np.float32)[:200]
    noisy = originals + sigma * np.random.default_rng(0).normal(size=originals.shape)
    restored = model.denoise(noisy, sigma)
    before, after = psnr(noisy, originals), psnr(restored, originals)
    print(f"PSNR {before:.2f} dB noisy, {after:.2f} dB denoised")
    return after - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/denoise"))
    main(parser.parse_args().outdir)
