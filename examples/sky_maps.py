"""A sky with a known variance in every pixel: train on it as it is, and restore it with an error for each pixel.

Made data, as of a survey: stars and galaxies on 16 x 16 pixels; each field is the sum of dithered exposures, so that
its edges and its bad columns are up to five times noisier than its middle. A tenth of the fields are deep and count as
clean. The same training on the mean level of each field (white noise) shows what the map is worth.

python examples/sky_maps.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pictures import figure, gain_text, psnr

from ambient_train import restore, train


def sky(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Fluxes [n, side, side]: two to five stars of one width, one galaxy."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    out = np.zeros((n, side, side))
    for image in out:
        for _ in range(rng.integers(2, 6)):
            row, column = rng.uniform(0, side, 2)
            image += rng.pareto(1.5) * 40 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.3**2))
        row, column = rng.uniform(3, side - 3, 2)
        long, turn = rng.uniform(2, 4), rng.uniform(0, np.pi)
        u = (y - row) * np.cos(turn) + (x - column) * np.sin(turn)
        v = (x - column) * np.cos(turn) - (y - row) * np.sin(turn)
        image += rng.uniform(50, 200) * np.exp(-np.hypot(u / long, 2 * v / long))
    return np.minimum(out, 600)


def exposures(n: int, side: int = 16, seed: int = 1) -> np.ndarray:
    """Standard deviation of every pixel [n, side, side]: nine exposures that are shifted by a few pixels, some columns
    masked in each."""
    rng = np.random.default_rng(seed)
    seen = np.zeros((n, side, side))
    for count in seen:
        for _ in range(9):
            top, left = rng.integers(-6, 7, 2)
            window = np.zeros((side, side))
            window[max(top, 0) : side + min(top, 0), max(left, 0) : side + min(left, 0)] = 1
            window[:, rng.integers(0, side)] = 0
            count += window
    return 120 / np.sqrt(np.maximum(seen, 0.4))


def main(outdir: Path, n: int = 1500, duration: str = "24k", samples: int = 5, most: int = 60) -> np.ndarray:
    """Returns what each restored field gains in dB by its map over white noise of its mean variance."""
    outdir.mkdir(parents=True, exist_ok=True)
    truth, deviation = sky(n), exposures(n)
    deviation[: n // 10] = 0
    images = (truth + deviation * np.random.default_rng(2).normal(size=truth.shape)).astype(np.float32)
    level = np.sqrt((deviation**2).mean(axis=(1, 2)))
    gained = []
    for name, sigma in (("maps", deviation.astype(np.float32)), ("white", level)):
        np.savez(outdir / f"{name}.npz", images=images, sigma=sigma)
        run = train(data=f"{outdir / name}.npz:range=0..400", corruption=0.9, holdout=0.0, duration=duration,
                    preset="digits", score=False, outdir=outdir / name)  # fmt: skip
        restore(run.directory, outdir / f"{name}-restored", samples=samples, max_images=most)
        with np.load(outdir / f"{name}-restored" / "restored.npz") as stored:
            noisy = stored["noise_before"] > 0
            ids, means = stored["ids"][noisy], stored["images"][noisy][:, 0]
            spread = stored["std"][noisy][:, 0]
        gained.append(psnr(means, truth[ids]))
        if name == "maps":
            rows = {"noise": 3 * deviation[ids[:8]], "noisy": images[ids[:8]], "restored": means[:8]}
            figure(outdir / "figure.png", {**rows, "true": truth[ids[:8]], "error": 3 * spread[:8]})
    difference = gained[0] - gained[1]
    print(gain_text(psnr(images[ids], truth[ids]), gained, "with maps"))
    return np.asarray(difference)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/sky"))
    main(parser.parse_args().outdir)
