"""Complex images with correlated noise: its spectrum from empty scans, then training and restoration with it.

Made data, as of magnetic resonance: ellipses with a smooth phase on 16 x 16 pixels, complex; the noise went through the
scanner's filter and is correlated between neighbours. Empty scans show its power spectrum. Real and imaginary part are
two channels, so that the noise is Gaussian (that of a magnitude is not). The same training on the level alone (white
noise) shows what the spectrum is worth.

python examples/mri_spectrum.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pictures import figure, gain_text, psnr

from ambient_train import restore, train


def phantoms(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Complex images [n, side, side] of magnitude up to 1: a head of ellipses, a phase that varies slowly."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / (side / 2)
    out = np.zeros((n, side, side), complex)
    for k in range(n):
        image = np.zeros((side, side))
        for number in range(rng.integers(3, 6)):
            size = rng.uniform(0.7, 0.9, 2) if number == 0 else rng.uniform(0.15, 0.4, 2)
            row, column = (0, 0) if number == 0 else rng.uniform(-0.5, 0.5, 2)
            turn = rng.uniform(0, np.pi)
            u = (y - row) * np.cos(turn) + (x - column) * np.sin(turn)
            v = (x - column) * np.cos(turn) - (y - row) * np.sin(turn)
            inside = 1 / (1 + np.exp((np.hypot(u / size[0], v / size[1]) - 1) * 12))
            image += inside * (0.6 if number == 0 else rng.uniform(-0.3, 0.35))
        phase = rng.normal() + rng.normal() * y + rng.normal() * x
        out[k] = image * np.exp(1j * phase)
    return out


def filtered(n: int, level: float, side: int = 16, seed: int = 1) -> np.ndarray:
    """Complex noise [n, side, side] of deviation `level` in each part, after a filter that keeps low frequencies along
    the readout more than across it, and a floor of white noise."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    power = 0.08 + np.exp(-((fx / 0.16) ** 2) - (fy / 0.28) ** 2)
    z = rng.normal(size=(n, side, side)) + 1j * rng.normal(size=(n, side, side))
    return level * np.fft.ifft2(np.sqrt(power / power.mean()) * np.fft.fft2(z))


def main(outdir: Path, n: int = 1500, duration: str = "24k", samples: int = 5, most: int = 60) -> np.ndarray:
    """Returns what each restored image gains in dB by the spectrum over white noise of its level."""
    from ambient_train.data.estimation.report import noise_of

    outdir.mkdir(parents=True, exist_ok=True)
    truth, level = phantoms(n), 0.25
    images = truth + filtered(n, level)
    images[: n // 10] = truth[: n // 10]
    sigma = np.full(n, level, np.float32)
    sigma[: n // 10] = 0
    np.save(outdir / "empty.npy", filtered(300, level, seed=3).astype(np.complex64))
    noise_of(f"{outdir / 'empty.npy'}:range=-1..1", spectrum=outdir / "scans.spectrum.npy", overwrite=True)
    gained = []
    for name in ("scans", "white"):
        np.save(outdir / f"{name}.npy", images.astype(np.complex64))
        np.save(outdir / f"{name}.sigma.npy", sigma)
        run = train(data=f"{outdir / name}.npy:range=-1..1", corruption=0.9, holdout=0.0, duration=duration,
                    preset="digits", score=False, outdir=outdir / name)  # fmt: skip
        restore(run.directory, outdir / f"{name}-restored", samples=samples, max_images=most)
        with np.load(outdir / f"{name}-restored" / "restored.npz") as stored:
            noisy = stored["noise_before"] > 0
            ids, parts = stored["ids"][noisy], stored["images"][noisy]
        means = np.abs(parts[:, 0] + 1j * parts[:, 1])
        gained.append(psnr(means, np.abs(truth[ids])))
        if name == "scans":
            rows = {"noisy": np.abs(images[ids[:8]]), "restored": means[:8], "true": np.abs(truth[ids[:8]])}
            figure(outdir / "figure.png", rows)
    difference = gained[0] - gained[1]
    print(gain_text(psnr(np.abs(images[ids]), np.abs(truth[ids])), gained, "with the spectrum"))
    return np.asarray(difference)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/mri"))
    main(parser.parse_args().outdir)
