"""Fashion-MNIST, 70,000 images 28 x 28 grey, where its files are installed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ambient_theory.shared.errors import DataError
from ambient_train.data.builtin import no_option
from ambient_train.data.readers.idx import idx_folder
from ambient_train.data.source import Source

DIRECTORY = "/usr/share/datasets/fashion-mnist"
VARIABLE = "FASHION_MNIST_DIR"
CLASSES = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


def fashion(argument: str = "") -> Source:
    """Fashion-MNIST (Xiao et al. 2017, MIT licence), 60,000 training and 10,000 held-out images, 1 x 28 x 28.

    Read from the directory that the environment variable FASHION_MNIST_DIR names, else from where Debian's package
    dataset-fashion-mnist puts it. Raises DataError, saying how to get it, where the files are missing.
    """
    no_option("fashion", argument)
    directory = Path(os.environ.get(VARIABLE) or DIRECTORY)
    try:
        return replace(idx_folder(directory, name="fashion"), classes=CLASSES)
    except DataError as error:
        raise DataError(
            f"fashion: {error}; install Debian's package dataset-fashion-mnist, or put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz into a directory "
            f"and set {VARIABLE} to it"
        ) from None


MEMBER = fashion
