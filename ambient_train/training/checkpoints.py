"""Checkpoints that are either whole or not there: a directory of safetensors and JSON, sealed by a manifest.

Everything is written under a temporary name, flushed to disk, the manifest of SHA-256 hashes last, then renamed once.
A loader believes only a directory whose manifest holds. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import flushed, fsync_directory, read_json, read_sealed, write_sealed
from ambient_theory.shared.parsing import parse_json
from ambient_train.training.checkpoint_names import available as available
from ambient_train.training.checkpoint_names import directory_name as directory_name

SCHEMA = "ambient.checkpoint/1"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """groups: named sets of tensors (`network`, `ema`, `optimizer`, ...). meta: JSON state (`nimg`, hashes, ...)."""

    groups: Mapping[str, Mapping[str, Tensor]]
    meta: Mapping[str, Any]

    @property
    def nimg(self) -> int:
        return int(self.meta["nimg"])


def save(parent: Path, checkpoint: Checkpoint) -> Path:
    """Write `parent/<nimg>/` atomically and return it. An OSError (full disk) leaves earlier checkpoints untouched."""
    final = parent / directory_name(checkpoint.nimg)
    temporary = parent / f".{final.name}.{os.getpid()}.tmp"
    parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        hashes = {}
        files = {
            f"{group}.safetensors": save_tensors({k: t.detach().cpu().contiguous() for k, t in tensors.items()})
            for group, tensors in checkpoint.groups.items()
        }
        files["meta.json"] = json.dumps(dict(checkpoint.meta), sort_keys=True, indent=1).encode()
        for name, data in files.items():
            with flushed(open(temporary / name, "wb")) as file:
                file.write(data)
            hashes[name] = hashlib.sha256(data).hexdigest()
        write_sealed(temporary / MANIFEST, {"schema": SCHEMA, "nimg": checkpoint.nimg, "files": hashes})
        fsync_directory(temporary)
        if final.exists():  # the same point reached again after a damaged copy: set the old one aside, then replace it
            aside = parent / f".{final.name}.old.tmp"
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(final, aside)
            try:
                os.replace(temporary, final)
            except OSError:
                os.replace(aside, final)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(parent)
    return final


def load(directory: Path) -> Checkpoint:
    """Read and verify one checkpoint. Raises DataError saying what is wrong with which file."""
    groups: dict[str, dict[str, Tensor]] = {}
    meta: Any = {}
    for name, data in _verified(directory):
        try:
            if name == "meta.json":
                meta = parse_json(data)
            else:
                groups[Path(name).stem] = load_tensors(data)
        except (SafetensorError, ValueError) as error:
            raise DataError(f"{directory / name}: damaged ({error})") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("nimg"), int):
        raise DataError(f"{directory}: meta.json does not say after how many images it was taken")
    return Checkpoint(groups, meta)


def load_at(parent: Path, nimg: int, batch: int) -> Checkpoint:
    """The checkpoint after `nimg` images, rounded up to whole steps of `batch`. Raises as `load` does, and UsageError,
    which says which there are, where there is none."""
    directory = parent / directory_name(-(-nimg // batch) * batch)
    if not directory.is_dir():
        there = ", ".join(str(int(p.name)) for p in available(parent)) or "none"
        raise UsageError(f"{parent.parent}: no checkpoint after {nimg} images: give one of {there}")
    return load(directory)


def best_at(directory: Path) -> int | None:
    """Image count of the best candidate up to a checkpoint, as that says; None where it says none that can be read."""
    try:
        return int(read_json(directory / "meta.json")["best"][0])
    except (DataError, KeyError, TypeError, ValueError):
        return None


def holds(directory: Path) -> bool:
    """Whether the manifest of a checkpoint and the hash of each of its files hold (tensors are not built)."""
    try:
        return sum(1 for _ in _verified(directory)) > 0
    except DataError:
        return False


def _verified(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of the manifest, each checked against its hash."""
    manifest = read_sealed(directory / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise DataError(f"{directory}: schema {manifest.get('schema')!r} is not {SCHEMA!r}")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise DataError(f"{directory}: the manifest lists no files")
    for name, expected in files.items():
        if Path(name).name != name:
            raise DataError(f"{directory}: the manifest names a file outside the checkpoint ({name!r})")
        try:
            data = (directory / name).read_bytes()
        except OSError as error:
            raise DataError(f"{directory / name}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(data).hexdigest() != expected:
            raise DataError(f"{directory / name}: damaged (checksum does not match)")
        yield name, data


def newest_valid(parent: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that holds, and a sentence for each newer one that does not."""
    complaints: list[str] = []
    for directory in reversed(available(parent)):
        try:
            return load(directory), complaints
        except DataError as error:
            complaints.append(str(error))
    return None, complaints


def prune(parent: Path, keep: int, protected: set[int]) -> None:
    """Delete all but the newest `keep` checkpoints that hold and those at `protected` image counts.

    keep 0 keeps everything. Nothing is deleted unless the newest one holds, and a damaged one is never counted among
    those that are kept.
    """
    remove_stale(parent)
    existing = available(parent)
    if keep <= 0 or len(existing) <= keep or not holds(existing[-1]):
        return
    kept = 1
    for directory in reversed(existing[:-1]):
        if kept < keep and holds(directory):
            kept += 1
        elif kept >= keep and int(directory.name) not in protected:
            shutil.rmtree(directory, ignore_errors=True)


def remove_stale(parent: Path) -> None:
    """Remove the temporary directories that a killed process left behind, for the sole user of the run."""
    for directory in parent.glob(".*.tmp"):
        if directory.is_dir():
            shutil.rmtree(directory, ignore_errors=True)
