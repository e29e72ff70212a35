"""LMDB by the package itself, and Hugging Face data sets by a stand-in of their
documented interface (tests/train/extras has the package)."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from data_files import png, rgb

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.load import load_images
from ambient_train.data.prepare.check import check
from ambient_train.data.prepare.prepare import PrepareConfig, prepare


@pytest.fixture
def lmdb_folder(tmp_path: Path) -> tuple[Path, dict[bytes, bytes]]:
    content = {f"{i:04d}".encode(): png(x) for i, x in enumerate(rgb(5))}
    return write_lmdb(tmp_path / "set_lmdb", content), content


def write_lmdb(path: Path, content: dict[bytes, bytes]) -> Path:
    environment = lmdb.open(str(path), map_size=2**22)
    with environment.begin(write=True) as transaction:
        for key, value in content.items():
            transaction.put(key, value)
    environment.close()
    return path


def test_lmdb_values_are_images_in_the_order_of_keys(lmdb_folder, tmp_path: Path) -> None:
    path, content = lmdb_folder
    np.testing.assert_array_equal(load_images(str(path)).images, rgb(5))
    result = prepare(PrepareConfig(source=str(path), dest=tmp_path / "o.zip"))
    assert result.count == 5
    np.testing.assert_array_equal(load_images(str(tmp_path / "o.zip")).images, rgb(5))
    write_lmdb(path, {b"0002": b"no image"})
    assert [p["file"] for p in check(str(path)).problems] == ["0002"]
    with pytest.raises(DataError, match="without entries"):
        load_images(str(write_lmdb(tmp_path / "empty", {})))


@pytest.mark.parametrize("as_file", [False, True])
def test_damaged_lmdb_is_refused_or_read_and_never_ends_the_command(tmp_path: Path, as_file: bool) -> None:
    """The package maps the file and believes it: cut ones raise a bus error, wrong pages a segmentation fault."""
    path = write_lmdb(tmp_path / "good", {f"{i:04d}".encode(): png(x) for i, x in enumerate(rgb(40))})
    good = (path / "data.mdb").read_bytes()
    rng = np.random.default_rng(0)
    said = []
    for k in range(24):
        data = bytearray(good)
        if k % 2:
            del data[int(rng.integers(1, len(good))) :]
        else:
            for at in rng.integers(0, len(good), 40):
                data[at] = int(rng.integers(0, 256))
        place = tmp_path / f"{k}.mdb"
        if not as_file:
            place = tmp_path / f"d{k}"
            place.mkdir()
        (place if as_file else place / "data.mdb").write_bytes(data)
        try:
            load_images(str(place))
        except DataError as error:
            said.append((str(place), str(error)))
    assert len(said) > 8
    assert all(place in message and "\n" not in message for place, message in said)
    np.testing.assert_array_equal(load_images(str(path)).images[:5], rgb(40)[:5])  # the helper goes on


@pytest.mark.parametrize(("spec", "extra"), [("LMDB", "lmdb"), ("hf:cifar10", "datasets")])
def test_a_missing_package_is_a_usage_error_that_names_the_extra(
    tmp_path: Path, monkeypatch, spec: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(UsageError, match=rf"ambient-worth\[{extra}\]"):
        load_images(spec.replace("LMDB", str(tmp_path)))


class _Table:
    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any], decoded: bool = True):
        self.rows, self.features, self.decoded = rows, features, decoded

    def cast_column(self, column: str, kind: Any) -> _Table:
        assert column == "img"
        return _Table(self.rows, self.features, kind.decode)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        assert not self.decoded, "images would be decoded by the package"
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]


class _Image:
    def __init__(self, decode: bool = True):
        self.decode = decode


class _ClassLabel:
    names = ("cat", "dog")


@pytest.fixture
def hub(monkeypatch) -> dict[str, Any]:
    features = {"img": _Image(), "label": _ClassLabel(), "id": object()}
    images, calls = rgb(6), {}
    rows = [{"img": {"bytes": png(x), "path": None}, "label": i % 2, "id": i} for i, x in enumerate(images)]
    module = types.ModuleType("datasets")
    parts = {"train": _Table(rows[:4], features), "test": _Table(rows[4:], features)}

    def load_dataset(name: str, config: str | None, **options: Any) -> dict[str, _Table]:
        calls.update(name=name, config=config, **options)
        if name == "missing":
            raise ConnectionError("Couldn't reach the Hub\nlong trace")
        return parts

    module.__version__ = "2.19.0"  # type: ignore[attr-defined]
    module.Image, module.ClassLabel, module.load_dataset = _Image, _ClassLabel, load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_hub_data_set_gives_images_labels_and_its_own_heldout_part(hub: dict[str, Any]) -> None:
    train, heldout = (load_images("hf:user/pets:small", split=s) for s in ("train", "heldout"))
    assert hub == {"name": "user/pets", "config": "small", "trust_remote_code": False}
    assert train.name == "pets"
    np.testing.assert_array_equal(train.images, rgb(6)[:4])
    np.testing.assert_array_equal(heldout.images, rgb(6)[4:])
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert list(heldout.ids) == [4, 5]


def test_hub_failure_is_one_sentence(hub: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^hf:missing: cannot be loaded \(Couldn't reach the Hub\)$"):
        load_images("hf:missing")
