"""Make the seals and hashes of damaged files fit again, so that what they guard is reached."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath

from ambient_theory.shared.files import content_hash


def resealed(files: Mapping[str, bytes], damaged: str) -> dict[str, bytes]:
    """The files with a new seal for `damaged` and for the manifest beside it that names its hash, where they can be."""
    made = dict(files)
    made[damaged] = _sealed(made[damaged])
    beside = str(PurePosixPath(damaged).with_name("manifest.json"))
    if beside in made and beside != damaged:
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            manifest = json.loads(made[beside])
            name = PurePosixPath(damaged).name
            if name in manifest["files"]:
                manifest["files"][name] = hashlib.sha256(made[damaged]).hexdigest()
                made[beside] = _sealed(json.dumps(manifest).encode())
    return made


def _sealed(data: bytes) -> bytes:
    """A sealed JSON object with the seal that its content has; anything else as it is."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        body = json.loads(data)
        if isinstance(body, dict) and body.pop("sha256", None) is not None:
            return json.dumps({**body, "sha256": content_hash(body, 64)}, indent=1).encode()
    return data
