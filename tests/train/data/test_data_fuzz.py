"""Mutated files of every kind: a set of images or one typed error naming the file; never a crash, a hang, or a file."""

from __future__ import annotations

import os
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    cifar_batches,
    cifar_python_files,
    edm_files,
    encode,
    png,
    rgb,
    write_folder,
    write_mnist_folder,
    write_tar,
    write_zip,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.cifar import load_plain_pickle
from ambient_train.data.formats.decode import decode_image
from ambient_train.data.load import load_images
from ambient_train.data.readers import open_source

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
FUZZ = settings(
    max_examples=int(os.environ.get("AMBIENT_FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Up to four edits: cut at, overwrite at, insert at, delete at a place given as a share of the length."""
    edit = st.tuples(
        st.sampled_from(["cut", "write", "write", "insert", "delete"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])),
    )
    return draw(st.lists(edit, min_size=1, max_size=4))


def mutate(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, text in edits:
        at = int(share * len(data))
        if kind == "cut":
            data = data[:at]
        elif kind == "write":
            data = data[:at] + text + data[at + len(text) :]
        elif kind == "insert":
            data = data[:at] + text + data[at:]
        else:
            data = data[:at] + data[at + len(text) :]
    return data


class _Samples(dict[str, bytes]):
    """Intact files by name, with a short name of its own for messages."""

    def __repr__(self) -> str:
        return "samples"


def _samples(root: Path) -> _Samples:
    images = rgb(4)
    np.savez(root / "a.npz", images=images, labels=np.arange(4), sigma=np.zeros(4))
    np.savez(root / "t.npz", train_images=images, train_labels=np.array(["a", "b"] * 2), meta=np.array({}, object))
    np.savez_compressed(root / "c.npz", images=images.astype(np.float32) / 127.5 - 1)
    np.save(root / "a.npy", images)
    files = edm_files(images, [0, 1, 2, 3])
    write_zip(root / "a.zip", files)
    write_zip(root / "d.zip", files, zipfile.ZIP_DEFLATED)
    write_tar(root / "a.tar.gz", cifar_python_files(cifar_batches(2)))
    write_tar(root / "a.tar", cifar_python_files(cifar_batches(2)))
    mnist = write_mnist_folder(root / "m", compressed=False)
    (mnist / "train-images-idx3-ubyte").rename(root / "a-idx3-ubyte")
    packed = write_mnist_folder(root / "g")
    (packed / "train-images-idx3-ubyte.gz").rename(root / "a-idx3-ubyte.gz")
    return _Samples((path.name, path.read_bytes()) for path in root.iterdir() if path.is_file())


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> _Samples:
    return _samples(tmp_path_factory.mktemp("samples"))


def _attempt(function, *arguments):
    """(result, "") or (None, the message of a DataError); any other exception fails the test."""
    try:
        return function(*arguments), ""
    except DataError as error:
        return None, str(error)


def _accept(path: Path) -> None:
    before = sorted(p.name for p in path.parent.iterdir())
    images, message = _attempt(load_images, str(path))
    if images is None:
        assert str(path) in message
        assert "\n" not in message
    else:
        assert images.images.ndim == 4
        assert not any("\n" in note for note in images.notes)
        assert np.isfinite(images.pixels()).all()
    assert sorted(p.name for p in path.parent.iterdir()) == before


@pytest.mark.parametrize(
    "name",
    ["a.npz", "c.npz", "t.npz", "a.npy", "a.zip", "d.zip", "a.tar.gz", "a.tar", "a-idx3-ubyte", "a-idx3-ubyte.gz"],
)
@FUZZ
@given(edits=mutations())
def test_mutated_file_is_read_or_refused_by_name(samples: _Samples, tmp_path: Path, name: str, edits: list) -> None:
    path = tmp_path / name
    path.write_bytes(mutate(samples[name], edits))
    _accept(path)


def test_the_samples_themselves_are_read(samples: _Samples, tmp_path: Path) -> None:
    for name, data in samples.items():
        (tmp_path / name).write_bytes(data)
        assert len(load_images(str(tmp_path / name))) >= 4


@pytest.mark.parametrize(
    "name",
    [
        "dataset.json",
        "labels.csv",
        "metadata.jsonl",
        "levels.csv",
        "labels.tsv",
        "sigma.npy",
        "list_eval_partition.txt",
    ],
)
@FUZZ
@given(edits=mutations())
def test_mutated_metadata_is_read_or_refused_by_name(tmp_path: Path, name: str, edits: list) -> None:
    np.save(tmp_path / "s.npy", np.zeros(2))
    originals = {
        "dataset.json": b'{"labels": [["a.png", 0], ["b.png", 1]], "sigma": [["a.png", 0], ["b.png", 0.5]]}',
        "metadata.jsonl": b'{"file": "a.png", "sigma": 0.5}\n{"file": "b.png", "sigma": 0, "label": "x"}\n',
        "levels.csv": b"file;noise_std\na;0,5\nb;0\n",
        "labels.tsv": b"name\tclass\na.png\tcat\nb.png\tdog\n",
        "labels.csv": b"file,label,sigma\na.png,0,0.5\nb.png,1,0\n",
        "sigma.npy": (tmp_path / "s.npy").read_bytes(),
        "list_eval_partition.txt": b"a.png 0\nb.png 1\n",
    }
    files = {"a.png": png(rgb(1)[0]), "b.png": png(rgb(1)[0]), name: mutate(originals[name], edits)}
    _accept(write_folder(tmp_path / "set", files))


_IMAGE = Image.fromarray(rgb(1, 16)[0].transpose(1, 2, 0))
_ENCODED = {kind: encode(_IMAGE, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")}


@pytest.mark.parametrize("kind", _ENCODED)
@FUZZ
@given(edits=mutations(), convert=st.sampled_from([None, "rgb", "grey"]))
def test_mutated_image_is_decoded_or_refused_by_name(kind: str, edits: list, convert) -> None:
    decoded, message = _attempt(decode_image, mutate(_ENCODED[kind], edits), "the/file", convert)
    if decoded is None:
        assert message.startswith("the/file: ")
    else:
        assert decoded[0].dtype == np.uint8
        assert decoded[0].shape[0] in (1, 3)


@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes_are_no_image_no_pickle_and_no_array(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError):
        decode_image(data, "x")
    for name in ("x.npz", "x.npy", "x.zip", "x.tar.gz", "x.idx"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError):
            load_images(str(tmp_path / name))


@settings(FUZZ, max_examples=200)
@given(edits=mutations(), protocol=st.integers(0, 4))
def test_mutated_pickles_give_plain_content_or_an_error(edits: list, protocol: int) -> None:
    data = pickle.dumps({b"data": rgb(2).reshape(2, -1), b"labels": [1, 2], "x": (1.5, None, b"y" * 300)}, protocol)
    _, message = _attempt(load_plain_pickle, mutate(data, edits), "f")
    assert message == "" or message.startswith("f: ")


class _Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_that_call_anything_are_refused_and_nothing_is_called(tmp_path: Path, protocol: int) -> None:
    import subprocess

    marker = tmp_path / "marker"
    attacks = [
        _Attack(os.system, f"touch {marker}"),
        _Attack(subprocess.call, ["touch", str(marker)]),
        _Attack(eval, f"open({str(marker)!r}, 'w')"),
        _Attack(getattr, Path, "cwd"),
        np.array([_Attack(os.mkdir, str(marker))], dtype=object),
    ]
    for attack in attacks:
        batch = pickle.dumps({b"data": attack, b"labels": []}, protocol)
        files = {f"cifar-10-batches-py/data_batch_{i}": batch for i in range(1, 6)}
        with pytest.raises(DataError, match=r"refuses|not understood|allowed are"):
            load_images(str(write_tar(tmp_path / "c.tar.gz", files)))
        np.save(tmp_path / "o.npy", np.array([attack], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="not numbers"):
            load_images(str(tmp_path / "o.npy"))
        assert not marker.exists()
    pickle.loads(pickle.dumps(_Attack(os.mkdir, str(marker))))  # control: a plain unpickler does call it
    assert marker.exists()


def test_a_pickle_cannot_ask_for_memory_beyond_its_size() -> None:
    for data in (
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # 1 TiB of bytes
        b"(" * 100000 + b"t" * 99999 + b".",
    ):
        with pytest.raises(DataError):
            load_plain_pickle(data, "x")
    tracemalloc.start()
    assert load_plain_pickle(b"\x80\x02]r\xff\xff\xff\x7f.", "x") == []  # memo slot 2^31 takes the room of one
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_pickle_cannot_ask_for_work_beyond_its_size() -> None:
    lists = b"](" + b"K\x01" * 300 + b"eq\x00"  # 300 numbers, then lists of 300 times the list before: 300^7 values
    for level in range(6):
        lists += b"](" + bytes([ord("h"), level]) * 300 + b"eq" + bytes([level + 1])
    text = b"c_codecs\nencode\nq\x00X" + (10**6).to_bytes(4, "little") + b"x" * 10**6 + b"q\x01X\x06\0\0\0latin1q\x02"
    texts = b"](" + text + b"h\x00h\x01h\x02\x86R" * 20_000 + b"e."  # a megabyte of bytes, 20,000 times over
    tracemalloc.start()
    for data, message in ((lists + b".", "expands to more than"), (texts, "a pickle of Global")):
        with pytest.raises(DataError, match=message):
            load_plain_pickle(data, "x")
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()
    nested = b"](" + b"](K\x01K\x02ee."  # control: what is small passes
    assert load_plain_pickle(nested, "x") == [[1, 2]]


def test_tar_members_that_are_links_or_too_large_are_not_followed(tmp_path: Path) -> None:
    import tarfile

    path = tmp_path / "c.tar"
    with tarfile.open(path, "w") as archive:
        for i in range(1, 6):
            info = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{i}")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    with pytest.raises(DataError, match="no CIFAR-10 batches"):
        load_images(str(path))


def test_compressed_headers_that_lie_about_their_size_are_refused(tmp_path: Path) -> None:
    import gzip
    import struct

    head = struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**10, 2**10)
    (tmp_path / "x.idx").write_bytes(head + b"\0" * 100)
    (tmp_path / "y.idx.gz").write_bytes(gzip.compress(head + b"\0" * (100 * 2**20)))
    for name in ("x.idx", "y.idx.gz"):
        with pytest.raises(DataError, match=r"truncated|expand|GiB"):
            load_images(str(tmp_path / name))


def test_an_idx_header_that_claims_more_than_there_is_asks_for_no_memory(tmp_path: Path) -> None:
    import struct

    path = tmp_path / "x.idx"
    path.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**6, 2**6) + b"\0" * 100)  # 4 GiB, within what is allowed
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="truncated, 100 of 4294967296 bytes"):
            load_images(str(path))
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_levels_that_are_no_real_numbers_are_refused(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8), np.float32)
    for sigma in (np.full(4, 0.2 + 0.1j), np.array(0.3j)):
        np.savez(tmp_path / "scans.npz", images=images, sigma=sigma)
        with pytest.raises(DataError, match=r"scans\.npz.*of type complex128; give real numbers"):
            load_images(str(tmp_path / "scans.npz"))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size", [2**33, 2**60])
def test_a_member_of_a_tarball_that_is_said_to_be_huge_is_not_passed_over_without_end(
    tmp_path: Path, size: int
) -> None:
    info = tarfile.TarInfo("cifar-10-batches-py/readme.html")
    info.size = size
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(DataError, match=r"a\.tar: .*beyond the end"):
        open_source(str(tmp_path / "a.tar"))
