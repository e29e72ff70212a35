"""Speed of the data package: loading, batches, resizing, preparing. `make bench` writes the numbers as JSON."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ambient_train.data.formats.png import encode_png
from ambient_train.data.load import ImageSet, load_images
from ambient_train.data.prepare.prepare import PrepareConfig, prepare
from ambient_train.data.resize import area_resize

N = 20_000


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, 3, 32, 32)).astype(np.uint8)


@pytest.fixture(scope="module")
def archive(images: np.ndarray, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i, image in enumerate(images):
            file.writestr(f"{i // 1000:05d}/img{i:08d}.png", encode_png(image))
    return path


def _rate(benchmark, count: int) -> None:
    if benchmark.stats is not None:
        benchmark.extra_info["images_per_s"] = count / benchmark.stats.stats.median


def test_batches_of_pixels_by_fancy_indexing(benchmark, images: np.ndarray) -> None:
    data = ImageSet("bench", images, None, np.arange(N))
    order = np.random.default_rng(1).permutation(N)

    def epoch() -> None:
        for start in range(0, N, 128):
            data.pixels(order[start : start + 128])

    benchmark(epoch)
    _rate(benchmark, N)


def test_loading_a_zip_of_our_own(benchmark, archive: Path) -> None:
    benchmark.pedantic(load_images, (str(archive),), rounds=3)
    _rate(benchmark, N)


def test_area_resizing_28_to_8(benchmark, images: np.ndarray) -> None:
    grey = images[:, :1, :28, :28]
    benchmark.pedantic(area_resize, (grey, 8), rounds=3)
    _rate(benchmark, N)


def test_preparing_32_to_16(benchmark, archive: Path, tmp_path: Path) -> None:
    config = PrepareConfig(source=str(archive), dest=tmp_path / "o.zip", transform="resize", resolution="16")
    benchmark.pedantic(prepare, (config,), {"overwrite": True}, rounds=2)
    _rate(benchmark, N)
