"""built-in set."""

from __future__ import annotations

from ambient_train.data.builtin import BUILT_IN
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source


def _recognises(spec: str) -> bool:
    return spec.partition(":")[0] in BUILT_IN


def _open(spec: str) -> Source:
    name, _, argument = spec.partition(":")
    return BUILT_IN[name](argument)


MEMBER = Reader(_recognises, _open, by_name=True)
