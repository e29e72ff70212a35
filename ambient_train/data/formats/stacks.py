"""Image files that have one size and one colour mode as one array, decoded by several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.plain_text import printable_line
from ambient_train.data.formats.trees import Tree, decode_threads
from ambient_train.data.source import prepare_command


def stacked_reader(tree: Tree) -> Callable[[np.ndarray], np.ndarray]:
    """read(ids) -> [m, C, H, W] for a tree whose images all have one size and one colour mode; else DataError."""
    first: list[tuple[str, tuple[int, ...]]] = []
    workers = decode_threads(tree)

    def one(index: int) -> np.ndarray:
        pixels, _ = tree.decode(index)
        name = tree.images[index]
        if not first:
            first.append((name, pixels.shape))
        reference, shape = first[0]
        if pixels.shape != shape:
            least = (min(pixels.shape[-2], shape[-2]), min(pixels.shape[-1], shape[-1]))
            raise DataError(
                f"{tree.where(name)}: {_describe(pixels.shape)}, but {printable_line(reference)} is "
                f"{_describe(shape)}; `{prepare_command(tree.root, least, floats=pixels.dtype != np.uint8)}` brings "
                "images to one size and one colour mode"
            )
        return pixels

    def read(ids: np.ndarray) -> np.ndarray:
        start = one(int(ids[0]))
        out = np.empty((len(ids), *start.shape), start.dtype)

        def fill(span: range) -> None:
            for row in span:
                out[row] = one(int(ids[row]))

        if workers == 1:
            fill(range(len(ids)))
            return out
        step = max(1, len(ids) // (4 * workers))
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(fill, [range(a, min(a + step, len(ids))) for a in range(0, len(ids), step)]):
                pass
        return out

    return read


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} x {shape[1]} {'grey' if shape[0] == 1 else 'RGB'}"
