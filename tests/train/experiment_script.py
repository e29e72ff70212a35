"""The scripts of experiments/ as modules, for the tests of what they write."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "experiments"


@functools.cache
def experiment(name: str) -> ModuleType:
    """experiments/NAME.py; under a name of its own, which its dataclasses look up. Scripts import what they share from
    their own folder."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"{name}_script", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
