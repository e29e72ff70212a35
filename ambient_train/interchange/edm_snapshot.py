"""Read `network-snapshot-*.pkl` files of EDM's trainer (Karras et al. 2022) without running anything in them.

Such a file is a pickle of a dictionary whose entry `ema` is the network: modules come as calls of
`torch_utils.persistence._reconstruct_persistent_obj` with a dictionary (class name, source text, state), tensors as
`torch._utils._rebuild_tensor_v2` of storages, and a storage is itself the bytes of a `torch.save` file of the old kind:
several pickles followed by raw numbers. The source text is never looked at.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ambient_theory.shared.errors import DataError
from ambient_train.safe_pickle import Budget, Call, Global, Reference, read_pickle

_ALLOWED = {
    "torch_utils.persistence._reconstruct_persistent_obj",
    "collections.OrderedDict",
    "dnnlib.util.EasyDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.modules.container.ModuleList",
    "torch.device",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
}
_DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_DEPTH = 64


@dataclass(frozen=True)
class Snapshot:
    """What is read: flat constructor arguments of `EDMPrecond`, the state dict, and how the data set was described."""

    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    dataset: dict[str, Any]


def read_edm_snapshot(path: str | os.PathLike[str], entry: str = "ema") -> Snapshot:
    """Read a snapshot. entry: which network of the file (`ema`; training dumps may have `net`).

    Raises DataError if the file is no such snapshot, is damaged, or asks for anything but containers and tensors.
    """
    try:
        with Path(path).open("rb") as file:
            root = _dictionary(read_pickle(file, _is_allowed))
            budget = Budget(os.fstat(file.fileno()).st_size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    try:
        return _interpret(root, entry, budget)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError, RecursionError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable EDM snapshot ({type(error).__name__}: {error})") from None


def _is_allowed(module: str, name: str) -> bool:
    return f"{module}.{name}" in _ALLOWED


def _is_storage_type(module: str, name: str) -> bool:
    return (module == "torch" and name in _STORAGES) or _is_allowed(module, name)


def _interpret(root: dict[Any, Any], entry: str, budget: Budget) -> Snapshot:
    if entry not in root:
        found = ", ".join(repr(key) for key in list(root)[:8])
        raise DataError(f"no network {entry!r} in the snapshot (it has {found}); give an EDM network-snapshot-*.pkl")
    class_name, state = _module(root[entry])
    if class_name != "EDMPrecond":
        raise DataError(f"the network is a {class_name!r}; only EDMPrecond can be read (train with --precond=edm)")
    config = {str(key): _plain(value, budget) for key, value in _dictionary(state.get("_init_kwargs", {})).items()}
    if _plain(state.get("_init_args", ()), budget) not in ((), []):
        raise DataError("the network was built with positional arguments; only keyword arguments can be read")
    for key in ("img_resolution", "img_channels", "label_dim", "use_fp16", "sigma_min", "sigma_max", "sigma_data"):
        if key in state:
            config.setdefault(key, _plain(state[key], budget))
    tensors: dict[str, Tensor] = {}
    _collect(state, "", tensors, budget, 0)
    dataset = _dictionary(root.get("dataset_kwargs") or {})
    described = {str(k): _plain(v, budget) for k, v in dataset.items() if not isinstance(v, Call)}
    return Snapshot(config, tensors, described)


def _dictionary(value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, Call) and str(value.function) in _DICTIONARIES and not value.args:
        return value.items
    raise DataError("a dictionary is missing where an EDM snapshot has one")


def _module(value: Any) -> tuple[str, dict[Any, Any]]:
    """Class name and state of a module."""
    if not isinstance(value, Call):
        raise DataError("a module is missing where an EDM snapshot has one")
    name = str(value.function)
    if name == "torch_utils.persistence._reconstruct_persistent_obj" and len(value.args) == 1:
        meta = _dictionary(value.args[0])
        return str(meta.get("class_name")), _dictionary(meta.get("state"))
    if name.startswith("torch.nn.modules."):
        return value.function.name, _dictionary(value.state)
    raise DataError(f"{name} is no module")


def _collect(state: dict[Any, Any], prefix: str, tensors: dict[str, Tensor], budget: Budget, depth: int) -> None:
    """Walk a module's parameters, buffers and children in the order of a state dict."""
    budget.spend()
    if depth > _MAX_DEPTH:
        raise DataError("modules are nested too deeply")
    hidden = state.get("_non_persistent_buffers_set", set())
    for kind in ("_parameters", "_buffers"):
        for name, value in _dictionary(state.get(kind, {})).items():
            if value is not None and not (kind == "_buffers" and name in hidden):
                tensors[f"{prefix}{name}"] = _tensor(value)
    for name, child in _dictionary(state.get("_modules", {})).items():
        if child is not None:
            _collect(_module(child)[1], f"{prefix}{name}.", tensors, budget, depth + 1)


def _plain(value: Any, budget: Budget, depth: int = 0) -> Any:
    """A JSON value of a setting: scalars, lists, dictionaries; NumPy scalars become numbers."""
    budget.spend()
    if depth > 8:
        raise DataError("a setting is nested too deeply")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v, budget, depth + 1) for v in value]
    if isinstance(value, Call) and str(value.function).endswith(".multiarray.scalar"):
        return _numpy_scalar(value)
    return {str(k): _plain(v, budget, depth + 1) for k, v in _dictionary(value).items()}


def _numpy_scalar(call: Call) -> bool | int | float:
    match call.args:
        case (Call(function=Global() as function, args=(str() as code, *_), state=state), bytes() as raw):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
            known = code in {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}
            if str(function) == "numpy.dtype" and known and order in ("<", ">", "=", "|"):
                dtype = np.dtype(order + code)
                if len(raw) == dtype.itemsize:
                    return np.frombuffer(raw, dtype)[0].item()
    raise DataError("a NumPy number cannot be read")


def _tensor(value: Any) -> Tensor:
    """Interpret `_rebuild_parameter(tensor, ...)` and `_rebuild_tensor_v2(storage, offset, size, stride, ...)`."""
    if isinstance(value, Call) and str(value.function) == "torch._utils._rebuild_parameter" and value.args:
        value = value.args[0]
    if not isinstance(value, Call) or str(value.function) != "torch._utils._rebuild_tensor_v2" or len(value.args) < 4:
        raise DataError("a tensor is missing where an EDM snapshot has one")
    storage, offset, size, stride = value.args[:4]
    flat = _storage(storage)
    if not all(isinstance(v, tuple) and all(type(n) is int and n >= 0 for n in v) for v in (size, stride, (offset,))):
        raise DataError("a tensor has sizes that are no whole numbers")
    if len(size) != len(stride) or len(size) > 8:
        raise DataError("a tensor has sizes and strides that do not fit together")
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count > flat.numel() or (count and last >= flat.numel()):
        raise DataError("a tensor reaches beyond its storage")
    return flat.as_strided(size, stride, offset).clone() if count else flat.new_empty(size)


def _storage(value: Any) -> Tensor:
    """Interpret `_load_from_bytes(bytes)`: a `torch.save` file of the old kind that holds one storage."""
    if not isinstance(value, Call) or str(value.function) != "torch.storage._load_from_bytes" or len(value.args) != 1:
        raise DataError("a storage is missing where an EDM snapshot has one")
    if not isinstance(value.args[0], bytes):
        raise DataError("a storage has no bytes")
    file = io.BytesIO(value.args[0])
    header = [read_pickle(file, _is_storage_type) for _ in range(3)]
    if header[0] != _MAGIC or header[1] != _PROTOCOL:
        raise DataError("a storage is not in PyTorch's legacy format")
    little = _dictionary(header[2]).get("little_endian", True)
    if little != (sys.byteorder == "little"):
        raise DataError("a storage was written on a machine of the other byte order")
    described = read_pickle(file, _is_storage_type)
    match described:
        case Reference(id=("storage", Global(module="torch", name=str() as kind), str() as key, _, int() as n, None)):
            dtype = _STORAGES[kind]
        case _:
            raise DataError("a storage is described in an unknown way")
    if read_pickle(file, _is_storage_type) != [key]:
        raise DataError("a storage is listed under another name")
    return _raw_numbers(file, n, dtype)


def _raw_numbers(file: IO[bytes], n: int, dtype: torch.dtype) -> Tensor:
    head = file.read(8)
    if len(head) != 8 or struct.unpack("<q", head)[0] != n:
        raise DataError("a storage has another length than it says")
    raw = file.read()
    if n < 0 or len(raw) != n * dtype.itemsize:
        raise DataError("a storage has another length than it says")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if n else torch.empty(0, dtype=dtype)
