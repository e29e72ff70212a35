"""scikit-learn's 1,797 handwritten digits, 8 x 8 grey."""

from __future__ import annotations

import numpy as np

from ambient_train.data.builtin import no_option
from ambient_train.data.source import Source


def digits(argument: str = "") -> Source:
    """1,797 images 1 x 8 x 8, ten classes; grey levels 0..16 are rounded to uint8 value/16 * 255."""
    from sklearn.datasets import load_digits

    no_option("digits", argument)
    bunch = load_digits()
    images = np.rint(bunch.images / 16 * 255).astype(np.uint8)[:, None]
    return Source(
        name="digits",
        count=len(images),
        read=lambda ids: images[ids],
        labels=bunch.target.astype(np.int64),
        default_holdout=0.2,
        classes=tuple(str(name) for name in bunch.target_names),
    )


MEMBER = digits
