"""Networks in hub form, here and on Hugging Face.

Hub form: a directory with `config.json` (flat constructor arguments of `EDMPrecond`) and `model.safetensors`;
`pytorch_model.bin` of older exports is read with `weights_only`. Nothing that is read can run code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor

from ambient_theory.shared.errors import DataError, UsageError, first_line
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text, read_json, write_sealed
from ambient_train.networks.precond import EDMPrecond
from ambient_train.safe_pickle import read_weights

CONFIG, WEIGHTS, OLD_WEIGHTS = "config.json", "model.safetensors", "pytorch_model.bin"
CARD = "README.md"
MEMORY, MEMORY_SCHEMA = "ambient.json", "ambient.export/1"
"""What an export of a run remembers of it: see `load.Trained.memory`."""
_LARGEST_SETTING, _LONGEST_LIST, _MOST_BLOCKS = 1 << 20, 64, 64
_LARGEST_IMAGE, _LARGEST_HEADER = 2**13, 2**22
"""Pixels of a side and channels; bytes, as some 40,000 tensors take: a million names would take half a minute."""


@dataclass(frozen=True)
class Exported:
    """Where a network was written, its flat config, the number of its parameters, and the address it was pushed to."""

    path: Path
    config: Mapping[str, Any]
    parameters: int
    source: str
    pushed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        config = {k: ("Infinity" if v == math.inf else v) for k, v in self.config.items()}
        about = {"path": str(self.path), "source": self.source, "parameters": self.parameters, "config": config}
        return {**about, "pushed": self.pushed}


def write_hub(
    network: EDMPrecond,
    destination: str | os.PathLike[str],
    *,
    source: str = "",
    memory: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> Exported:
    """Write `config.json` and `model.safetensors`, and `memory` (sealed) beside them; see `load.export`.

    card: Markdown for `README.md`, which is not written over.
    """
    directory = Path(destination)
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory} is a file: name a directory to write to")
    # `Infinity`, which Python's json reads and writes, is what the reference's own config.json files contain
    config_bytes = (json.dumps(network.config, indent=1) + "\n").encode()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    weight_bytes = save_tensors(tensors, metadata={"format": "pt"})
    for name, data in ((WEIGHTS, weight_bytes), (CONFIG, config_bytes)):
        existing = directory / name
        if existing.exists() and existing.read_bytes() != data:
            raise UsageError(f"{existing} holds another network: choose another directory, or remove it first")
    atomic_write_bytes(directory / WEIGHTS, weight_bytes)
    if memory is not None:
        write_sealed(directory / MEMORY, memory)
    if card is not None and not (directory / CARD).exists():
        atomic_write_text(directory / CARD, card)
    atomic_write_bytes(directory / CONFIG, config_bytes)
    return Exported(directory, network.config, sum(p.numel() for p in network.parameters()), source)


def build(config: Mapping[str, Any], state: Mapping[str, Tensor], origin: str) -> EDMPrecond:
    """The network of flat arguments `config` with the tensors `state`, in evaluation mode, float32.

    The network is laid out without memory first, so that a wrong config costs nothing. Resampling filters may be
    missing (they follow from the config) but not differ. Raises DataError naming `origin` and what does not fit.
    """
    arguments = checked_config(config, origin)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without a weight
            network = EDMPrecond(**arguments)
    except DataError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError, IndexError) as error:
        raise DataError(f"{origin}: the settings make no network ({error})") from None
    expected = network.state_dict()
    filters = {name: value for name, value in network.named_buffers() if name.endswith("resample_filter")}
    complete = {**filters, **state}
    missing, unexpected = [k for k in expected if k not in complete], [k for k in complete if k not in expected]
    if missing or unexpected:
        raise DataError(
            f"{origin}: weights do not fit the settings: {_some('missing', missing)}{_some('unknown', unexpected)}"
        )
    for name, tensor in complete.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, the settings ask for {list(expected[name].shape)}"
            raise DataError(f"{origin}: {name} has shape {shapes}")
        if not tensor.dtype.is_floating_point:
            raise DataError(f"{origin}: {name} has numbers of type {tensor.dtype}")
    for name, computed in filters.items():
        if not torch.allclose(complete[name].float(), computed, atol=1e-3 * float(computed.max())):
            raise DataError(f"{origin}: {name} is not the filter of the settings")
    network.load_state_dict(
        {name: filters[name] if name in filters else t.to(torch.float32) for name, t in complete.items()}, assign=True
    )
    return network.eval().requires_grad_(True)


def checked_config(config: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Flat arguments without private keys, their values bounded. Raises DataError for what cannot be a setting."""
    arguments: dict[str, Any] = {}
    for key, value in config.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise DataError(f"{origin}: {key!r} is no name of a setting")
        if key.startswith("_"):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) > _LONGEST_LIST:
            raise DataError(f"{origin}: {key} has {len(values)} entries, more than {_LONGEST_LIST}")
        for v in values:
            number = isinstance(v, int | float) and not isinstance(v, bool)
            if v is not None and not number and not isinstance(v, bool | str):
                raise DataError(f"{origin}: {key} has a value of type {type(v).__name__}")
            if number and key != "sigma_max" and not 0 <= v <= _LARGEST_SETTING:
                raise DataError(f"{origin}: {key} = {v} is not between 0 and {_LARGEST_SETTING}")
        arguments[key] = list(value) if isinstance(value, tuple) else value
    if isinstance(blocks := arguments.get("num_blocks"), int) and blocks > _MOST_BLOCKS:
        raise DataError(f"{origin}: num_blocks = {blocks} is more than {_MOST_BLOCKS}")
    for key in ("img_resolution", "img_channels"):
        if type(arguments.get(key)) is not int or arguments[key] < 1:
            raise DataError(f"{origin}: {key} is missing or no whole number: it must be a positive whole number")
        if arguments[key] > _LARGEST_IMAGE:
            raise DataError(f"{origin}: {key} = {arguments[key]} is more than {_LARGEST_IMAGE}")
    return arguments


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}) "


def read_hub(directory: Path) -> tuple[EDMPrecond, dict[str, Any]]:
    """The network of a hub directory and its flat constructor arguments. Raises DataError."""
    path = directory / CONFIG
    if not path.exists():
        raise DataError(f"{path}: no such file; a hub directory has {CONFIG} and {WEIGHTS}")
    config = read_json(path)
    if not isinstance(config, dict):
        raise DataError(f"{path}: not a JSON object of constructor arguments")
    config = checked_config(config, str(path))
    if (directory / WEIGHTS).is_file():
        weights, state = directory / WEIGHTS, _read_safetensors(directory / WEIGHTS)
    elif (directory / OLD_WEIGHTS).is_file():
        weights, state = directory / OLD_WEIGHTS, read_weights(directory / OLD_WEIGHTS, str(directory / OLD_WEIGHTS))
    else:
        raise DataError(f"{directory}: neither {WEIGHTS} nor {OLD_WEIGHTS} beside {CONFIG}")
    return build(config, state, str(weights)), config


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER:
            raise DataError(f"{path}: a header of {length:,} bytes, more than {_LARGEST_HEADER:,}: no network has it")
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def _client(what: str) -> Any:
    """The package huggingface_hub with its parts. Raises UsageError where it is not installed."""
    try:
        client = import_module("huggingface_hub")
    except ImportError:
        raise UsageError(
            f"{what} needs the package huggingface_hub: pip install 'ambient-worth[hub]', or give a local directory"
        ) from None
    for part in ("errors", "utils"):
        import_module(f"huggingface_hub.{part}")
    if not sys.stderr.isatty():  # its bars would fill a log
        client.utils.disable_progress_bars()
    return client


def download(name: str) -> Path:
    """The local copy of a Hugging Face repository `ORGANISATION/NAME[@REVISION]`.

    Raises UsageError without the extra, DataError for what cannot be fetched and for a file whose content is not what
    the hub says that it is.
    """
    client = _client(f"hf:{name}")
    repository, _, revision = name.partition("@")
    try:
        path = client.snapshot_download(
            repository, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS, OLD_WEIGHTS, MEMORY]
        )
    except Exception as error:  # the package raises what its transport raises
        raise DataError(f"hf:{name}: cannot be fetched ({first_line(error)})") from None
    for file in sorted(Path(path).iterdir()):
        if not _is_what_it_should_be(file.resolve()):
            raise DataError(
                f"hf:{name}: {file.name} is damaged, its content has another hash than the hub names: remove "
                f"{file.resolve()} and try again"
            )
    return Path(path)


def _is_what_it_should_be(blob: Path) -> bool:
    """Whether a file of the cache has the hash that it is named after: SHA-256 of large files, git's SHA-1 of small
    ones. A cache without links does not say, and is believed."""
    name = blob.name
    if len(name) not in (40, 64) or set(name) - set("0123456789abcdef"):
        return True
    digest = hashlib.sha256() if len(name) == 64 else hashlib.sha1(f"blob {blob.stat().st_size}\0".encode())
    with open(blob, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest() == name


def check_repository(name: str) -> None:
    """Raise UsageError for what is no `ORGANISATION/NAME`, and where nothing can be uploaded from here."""
    client = _client(f"--push {name}")
    try:
        client.utils.validate_repo_id(name)
    except client.errors.HFValidationError as error:
        raise UsageError(f"--push {name!r}: not ORGANISATION/NAME ({first_line(error)})") from None
    if name.count("/") != 1:
        raise UsageError(f"--push {name!r}: give ORGANISATION/NAME")


def upload(written: Exported, name: str) -> Exported:
    """Upload a directory in hub form. Raises DataError where the hub refuses; the directory stays."""
    client = _client(f"--push {name}")
    api = client.HfApi()
    try:
        if not api.repo_exists(name):
            api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(
            folder_path=written.path,
            repo_id=name,
            allow_patterns=[CONFIG, WEIGHTS, MEMORY, CARD],
            commit_message="Network written by ambient export",
        )
    except Exception as error:  # the package raises what its transport raises
        raise DataError(
            f"{name}: the hub took nothing ({first_line(error)}); the network is in {written.path}"
        ) from None
    return replace(written, pushed=f"hf:{name}")
