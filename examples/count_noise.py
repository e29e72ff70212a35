"""Counts of a camera: find gain and read noise, train on the noisy images as counts, restore them in counts.

Made data, as of a confocal microscope: beads and threads of 10 to 400 photons, 16 pixels a side, read noise and gain of
a camera. A tenth of the images are long exposures, which count as clean.

python examples/count_noise.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pictures import figure, gain_text, psnr

from ambient_train import restore, train

if TYPE_CHECKING:
    from ambient_train.data.estimation.gain import Gain

GAIN, READ, OFFSET = 2.2, 6.0, 100.0


def cells(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Photons of made images [n, side, side]: one to three beads and a thread on a dim ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    out = np.full((n, side, side), 10.0)
    for image in out:
        for _ in range(rng.integers(1, 4)):
            row, column = rng.uniform(2, side - 2, 2)
            radius = rng.uniform(0.8, 2.2)
            image += rng.uniform(60, 400) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * radius**2))
        angle, shift = rng.uniform(0, np.pi), rng.uniform(4, side - 4)
        across = (y - side / 2) * np.cos(angle) + (x - shift) * np.sin(angle)
        image += rng.uniform(20, 120) * np.exp(-(across**2) / 2)
    return out


def main(outdir: Path, n: int = 1500, duration: str = "24k", samples: int = 5, most: int = 60) -> np.ndarray:
    """Returns what each restored image gains in dB as counts over white noise of one level."""
    from ambient_train.data.estimation.report import noise_of

    outdir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)

    def camera(photons: np.ndarray) -> np.ndarray:
        noisy = GAIN * rng.poisson(photons) + OFFSET + READ * rng.normal(size=photons.shape)
        return np.rint(noisy).clip(0, 65535).astype(np.uint16)

    # flat fields at many exposures show the line variance = gain v + intercept
    np.save(outdir / "flat.npy", camera(np.repeat(np.geomspace(5, 500, 400), 256).reshape(400, 16, 16)))
    line = noise_of(str(outdir / "flat.npy")).sets[0].gain
    assert line is not None
    print(f"{line.sentence()}; true gain {GAIN}, intercept {READ**2 - GAIN * OFFSET:.0f}")

    photons = cells(n)
    truth, images = GAIN * photons + OFFSET, camera(photons)
    sigma = np.full(n, noise_of_mean(line, truth), np.float32)
    sigma[: n // 10] = 0
    images[sigma == 0] = np.rint(truth[sigma == 0])
    np.save(outdir / "cells.npy", images)
    np.save(outdir / "cells.sigma.npy", sigma)  # read as counts, all that matters is what is 0
    gained, common = [], {"corruption": 0.9, "holdout": 0.0, "duration": duration, "preset": "digits", "score": False}
    for name, data in (("counts", f"cells.npy:gain={line.gain:.4f},{line.intercept:.2f}"), ("white", "cells.npy")):
        run = train(data=f"{outdir}/{data}", **common, outdir=outdir / name)
        restore(run.directory, outdir / f"{name}-restored", samples=samples, max_images=most)
        with np.load(outdir / f"{name}-restored" / "restored.npz") as stored:
            noisy = stored["noise_before"] > 0
            ids, means = stored["ids"][noisy], stored["images"][noisy][:, 0]
        gained.append(psnr(means, truth[ids]))
        if name == "counts":
            rows = {"noisy": images[ids[:8]], "restored": means[:8], "true": truth[ids[:8]]}
            figure(outdir / "figure.png", rows)
    difference = gained[0] - gained[1]
    print(gain_text(psnr(images[ids], truth[ids]), gained, "as counts"))
    return np.asarray(difference)


def noise_of_mean(line: Gain, truth: np.ndarray) -> float:
    """The level of white noise with the mean variance of these brightnesses."""
    return float(np.sqrt(line.variance(truth).mean()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/counts"))
    main(parser.parse_args().outdir)
