"""Counts of a camera: find gain and read noise, train on the noisy images as counts, restore them in counts.

Made data, as of a confocal microscope: beads and threads of 10 to 400 photons, 16 pixels a side, read noise and gain of
a camera. A tenth of the images are long exposures, which count as clean.

python examples/count_noise.py
"""

import argparse
from pathlib import Path

import numpy as np

from ambient_train import restore, train

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


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of each image in dB, for the range of the true ones."""
    return np.asarray(20 * np.log10(np.ptp(truth)) - 10 * np.log10(((images - truth) ** 2).mean(axis=(1, 2))))


def main(outdir: Path, n: int = 1500, duration: str = "60k", samples: int = 9, shown: int = 6) -> np.ndarray:
    from ambient_train.data.estimation.report import noise_of

    outdir.mkdir(parents=True, exist_ok=True)
    photons, rng = cells(n), np.random.default_rng(1)
    truth = GAIN * photons + OFFSET
    counts = np.rint(GAIN * rng.poisson(photons) + OFFSET + READ * rng.normal(size=photons.shape))
    sigma = np.ones(n, np.float32)  # of counts only 0 (clean) or not is read
    sigma[: n // 10] = 0
    counts[sigma == 0] = np.rint(truth[sigma == 0])
    np.save(outdir / "cells.npy", counts.clip(0, 65535).astype(np.uint16))
    np.save(outdir / "noisy.npy", counts[sigma > 0].clip(0, 65535).astype(np.uint16))

    line = next(s.gain for s in noise_of(str(outdir / "noisy.npy")).sets if s.gain is not None)
    print(f"found: {line.sentence()}; true gain {GAIN}, intercept {READ**2 - GAIN * OFFSET:.1f}")
    np.save(outdir / "cells.sigma.npy", sigma)
    as_counts = f"{outdir / 'cells.npy'}:gain={line.gain:.4f},{line.intercept:.2f}"
    white = noise_of(str(outdir / "noisy.npy")).sets[0].level.value
    np.savez(outdir / "white.npz", images=counts.clip(0, 65535).astype(np.uint16), sigma=white * sigma)

    gained = []
    for name, data in (("counts", as_counts), ("white", str(outdir / "white.npz"))):
        run = train(
            data=data,
            corruption=0.9,
            holdout=0.0,
            duration=duration,
            preset="digits",
            score=False,
            evaluation={"denoise": 0, "best": False},
            outdir=outdir / name,
        )
        restore(run.directory, outdir / f"{name}-restored", samples=samples, max_images=200)
        with np.load(outdir / f"{name}-restored" / "restored.npz") as stored:
            noisy = stored["noise_before"] > 0
            ids, means = stored["ids"][noisy], stored["images"][noisy][:, 0]
        gained.append(psnr(means, truth[ids]))
    before = psnr(counts[ids], truth[ids])
    difference = gained[0] - gained[1]
    print(
        f"PSNR {before.mean():.2f} dB noisy, {gained[0].mean():.2f} restored as counts, {gained[1].mean():.2f} as white "
        f"noise of one level: counts gain {difference.mean():.2f} +- {difference.std() / len(ids) ** 0.5:.2f} dB"
    )
    figure(
        outdir / "figure.png",
        {"noisy": counts[ids[:shown]], "restored": means_of(outdir, "counts", shown), "truth": truth[ids[:shown]]},
    )
    return difference


def means_of(outdir: Path, name: str, shown: int) -> np.ndarray:
    with np.load(outdir / f"{name}-restored" / "restored.npz") as stored:
        return np.asarray(stored["images"][stored["noise_before"] > 0][:shown, 0])


def figure(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Rows of images, each row of one kind, on one scale of grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    low, high = min(r.min() for r in rows.values()), max(np.percentile(r, 99.8) for r in rows.values())
    columns = len(next(iter(rows.values())))
    drawn, axes = plt.subplots(len(rows), columns, figsize=(1.1 * columns + 0.8, 1.15 * len(rows)), squeeze=False)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for image, place in zip(images, line, strict=True):
            place.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
        line[0].set_ylabel(name)
    drawn.tight_layout(pad=0.3)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/counts"))
    main(parser.parse_args().outdir)
