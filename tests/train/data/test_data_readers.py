"""The table of readers: a new file is a new kind of source in opening, messages, help and documentation."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_files import png, rgb, write_folder, write_mnist_folder

from ambient_theory.shared.errors import DataError
from ambient_train.data import builtin, readers
from ambient_train.data.load import load_images
from ambient_train.data.readers import READERS, open_source, source_help, source_table

DOCS = Path(__file__).parents[3] / "docs" / "data.md"
TOY = '''"""toy of random images."""

import numpy as np

from ambient_train.data.readers import Reader
from ambient_train.data.source import Source

IMAGES = np.arange(3 * 64, dtype=np.uint8).reshape(3, 1, 8, 8)
MEMBER = Reader(lambda spec: spec.endswith(".toy"), lambda spec: Source("toy", 3, lambda ids: IMAGES[ids]))
'''
TOY_SET = '''"""One grey square."""

import numpy as np

from ambient_train.data.source import Source

MEMBER = lambda argument: Source("square", 1, lambda ids: np.zeros((1, 1, 8, 8), np.uint8)[ids])
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader and a built-in set that are one file each, beside the real ones."""
    from ambient_train.commands import data

    for package, name, text in ((readers, "toy_format", TOY), (builtin, "square", TOY_SET)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    importlib.reload(data)
    yield tmp_path
    monkeypatch.undo()
    for name in ("ambient_train.data.readers.toy_format", "ambient_train.data.builtin.square"):
        sys.modules.pop(name, None)
    importlib.reload(data)


def test_a_new_file_is_a_new_reader_everywhere(toys: Path) -> None:
    from ambient_train.commands import data

    (toys / "a.toy").write_bytes(b"")
    assert load_images(str(toys / "a.toy")).images[2, 0, 7, 7] == 3 * 64 - 1
    assert load_images("square").images.shape == (1, 1, 8, 8)
    (toys / "a.txt").write_bytes(b"")
    for spec in (str(toys / "a.txt"), "nowhere"):
        with pytest.raises(DataError) as caught:
            open_source(spec)
        assert ("toy of random images" in str(caught.value)) == (spec != "nowhere")
        assert "square" in str(caught.value)
    assert "toy of random images" in data.SOURCE_HELP
    assert "square" in data.SOURCE_HELP
    assert "| toy-format | toy of random images |\n" in source_table()
    assert "| `square` | One grey square |\n" in source_table()


def test_without_the_file_there_is_no_such_reader(tmp_path: Path) -> None:
    (tmp_path / "a.toy").write_bytes(b"")
    with pytest.raises(DataError, match="unknown kind"):
        open_source(str(tmp_path / "a.toy"))
    assert "toy" not in source_help() + source_table()


def test_the_table_in_the_documentation_is_the_one_of_the_readers() -> None:
    text = DOCS.read_text(encoding="utf-8")
    between = text.split("source_table -->\n")[1].split("<!-- end of the table")[0]
    assert between == source_table()


NUMBERS = {
    "a.tif": "tiff",
    "a.h5": "hdf5",
    "a.fits": "fits",
    "a.fits.gz": "fits",
    "a.nii.gz": "nifti",
    "a.png": "png16",
}


def test_every_reader_is_asked_and_only_one_takes_each_source(tmp_path: Path) -> None:
    write_mnist_folder(tmp_path / "mnist")
    write_folder(tmp_path / "folder", {"a.png": png(rgb(1)[0])})
    write_folder(tmp_path / "lsun_lmdb", {"data.mdb": b""})
    write_folder(tmp_path / "cifar-10-batches-py", {"data_batch_1": b""})
    for name in ("a.npz", "a.npy", "a.zip", "a.tar.gz", "a-idx3-ubyte.gz", *NUMBERS):
        (tmp_path / name).write_bytes(b"")
    specs = {"digits": "built-in", "photos32:stride=8": "built-in", "hf:user/set": "hugging-face"}
    found = {"mnist": "idx", "folder": "folder", "lsun_lmdb": "lmdb", "cifar-10-batches-py": "cifar", "a.npz": "npz"}
    found |= {"a.npy": "npy", "a.zip": "folder", "a.tar.gz": "cifar", "a-idx3-ubyte.gz": "idx"}
    found |= NUMBERS
    specs |= {str(tmp_path / name): kind for name, kind in found.items()}
    for spec, kind in specs.items():
        takers = {name for name in READERS if READERS[name].recognises(spec)}
        assert kind in takers
        assert takers - {"folder"} == {kind} - {"folder"}  # any folder is a folder: that reader is asked last
    assert {name for name in READERS if READERS[name].general} == {"folder"}
    assert set(specs.values()) == set(READERS.names)


def test_a_set_has_the_content_of_its_files_whatever_their_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{kind}/{i}.png": png(x) for i, x in enumerate(rgb(6)) for kind in ["ab"[i % 2]]}
    np.savez(tmp_path / "one.npz", images=rgb(4))
    np.savez(tmp_path / "two.npz", images=rgb(4))
    for name in ("here", "there", "back\\slash"):
        write_folder(tmp_path / name, files)
    monkeypatch.chdir(tmp_path)
    sets = [load_images(spec) for spec in ("here", "./here/", str(tmp_path / "here"), "there", "back\\slash")]
    assert len({s.content_hash for s in sets}) == 1
    assert [s.name for s in sets] == ["here", "here", "here", "there", "back-slash"]
    assert load_images("one.npz").content_hash == load_images(str(tmp_path / "two.npz")).content_hash
    (tmp_path / "there" / "a" / "0.png").write_bytes(png(rgb(1, seed=1)[0]))
    assert load_images("there").content_hash != sets[0].content_hash  # control: other pixels
