"""Pickles as EDM's trainer and old versions of PyTorch write them, made without either."""

from __future__ import annotations

import io
import pickle
import struct

import torch


class Payload:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Stored:
    def __init__(self, data: bytes):
        self.data = data

    def __reduce__(self):
        return (torch.storage._load_from_bytes, (self.data,))


class Persistent:
    def __init__(self, meta: dict):
        self.meta = meta


def dumps_like_edm(root: dict) -> bytes:
    """A pickle that names EDM's reconstruction function, which is not importable here."""
    file = io.BytesIO()

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]  # noqa: RUF012

        def save_persistent(self, obj):
            self.save("torch_utils.persistence")
            self.save("_reconstruct_persistent_obj")
            self.write(pickle.STACK_GLOBAL)
            self.save((obj.meta,))
            self.write(pickle.REDUCE)

        dispatch[Persistent] = save_persistent

    Pickler(file, 4).dump(root)
    return file.getvalue()


def legacy_storage(kind: object, numbers: int, raw: bytes, listed: str = "0", head: int | None = None) -> bytes:
    file = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(value, file, 2)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", kind, "0", "cpu", numbers, None) if obj == "STORAGE" else None

    Pickler(file, 2).dump("STORAGE")
    pickle.dump([listed], file, 2)
    return file.getvalue() + struct.pack("<q", numbers if head is None else head) + raw
