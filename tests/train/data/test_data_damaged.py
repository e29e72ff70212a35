"""What the campaign on damaged files found in the readers of numbers, and that the campaign itself sees every fault."""

from __future__ import annotations

import gc
import gzip
import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confined
import files
import numpy as np
import pytest
import table
from data_files import encode
from number_files import counts, fits, gzipped, hdf5, nifti, tiff
from PIL import Image
from readers import READERS
from seals import resealed

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.load import load_images
from ambient_train.data.readers import open_source
from ambient_train.data.readers._aside import _Session
from ambient_train.interchange.load import load_trained

TORTURE = Path(files.__file__).parent


def patched(path: Path, old: bytes, new: bytes) -> Path:
    """The file with the first `old` overwritten by `new`."""
    data = path.read_bytes()
    at = data.index(old)
    path.write_bytes(data[:at] + new + data[at + len(new) :])
    return path


@pytest.fixture
def nothing_said(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder):
    """Neither a warning nor a word on the terminal, from Python or from below."""
    yield
    said = capfd.readouterr()
    warned = [str(w.message) for w in recwarn if w.category is not ResourceWarning]  # a source lets go when collected
    assert (said.out, said.err, warned) == ("", "", [])


# ---------------------------------------------------------------------------------------------------------------- FITS


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "value"), [("NAXIS   ", 2**31), ("NAXIS   ", -1), ("ZNAXIS  ", 2**31), ("TFIELDS ", 100_000)]
)
def test_a_fits_that_its_library_never_returns_from_is_refused(tmp_path: Path, name: str, value: int) -> None:
    from astropy.io import fits as format

    hdus = [format.PrimaryHDU(), format.CompImageHDU(counts(3).astype(np.int16), name="SCI")]
    format.HDUList(hdus).writeto(tmp_path / "a.fits")
    data = (tmp_path / "a.fits").read_bytes()
    at = data.rindex(f"{name}= ".encode())
    (tmp_path / "a.fits").write_bytes(data[: at + 10] + str(value).rjust(20).encode() + data[at + 30 :])
    for path in (tmp_path / "a.fits", gzipped(tmp_path / "a.fits")):
        with pytest.raises(DataError, match=rf"{path.name}: a damaged FITS file \({name.strip()} = {value}\)"):
            load_images(str(path))


@pytest.mark.timeout(60)
def test_units_of_a_fits_that_lie_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = fits(tmp_path / "a.fits", counts(3))
    data = path.read_bytes()
    for name, value in (("NAXIS1", -16), ("NAXIS2", 90), ("NAXIS3", 1)):  # as many bytes back as the header is long
        at = data.index(name.encode())
        data = data[: at + 10] + str(value).rjust(20).encode() + data[at + 30 :]
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.fits: a damaged FITS file \(its units follow each other in a circle\)"):
        load_images(str(path))


@pytest.mark.parametrize("write", [fits, nifti])
def test_packed_files_that_expand_without_end_are_refused(tmp_path: Path, write: Callable) -> None:
    path = write(tmp_path / {fits: "a.fits", nifti: "a.nii"}[write], counts(2))
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes() + b" " * (100 * 2**20), 1))
    with pytest.raises(DataError, match=rf"{packed.name}: .* bytes expand to"):
        load_images(str(packed))


def test_a_fits_of_another_packing_is_not_unpacked(tmp_path: Path) -> None:
    import bz2

    path = fits(tmp_path / "a.fits", counts(2))
    path.write_bytes(bz2.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"a\.fits: not a FITS file"):
        load_images(str(path))


@pytest.mark.usefixtures("nothing_said")
def test_levels_of_a_fits_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    path = fits(tmp_path / "a.fits", counts(2), IVAR=np.full((2, 16, 16), 1e-200))
    with pytest.raises(DataError, match=r"a\.fits:IVAR: noise levels beyond what 32-bit floats hold"):
        load_images(str(path))


@pytest.mark.parametrize("kind", ["HCOMPRESS_1", "PLIO_1"])
def test_packings_whose_decoder_spoils_memory_are_refused_in_images_and_in_levels(tmp_path: Path, kind: str) -> None:
    from astropy.io import fits as format

    packed = [
        format.CompImageHDU(counts(1)[0].astype(np.int32), compression_type=kind, name=name) for name in ("SCI", "VAR")
    ]
    plain = format.ImageHDU(counts(1)[0], name="SCI")
    for name, hdus in (("a.fits", packed[:1]), ("b.fits", [plain, packed[1]])):
        format.HDUList([format.PrimaryHDU(), *hdus]).writeto(tmp_path / name)
        with pytest.raises(DataError, match=rf"{name}\S*: packed by {kind}, .* funpack"):
            load_images(str(tmp_path / name))
    rice = format.CompImageHDU(counts(3).astype(np.int16), compression_type="RICE_1")
    format.HDUList([format.PrimaryHDU(), rice]).writeto(tmp_path / "c.fits")
    loaded = load_images(str(tmp_path / "c.fits"), holdout=0.0)
    assert loaded.values is not None
    np.testing.assert_allclose(loaded.values.to_values(loaded.images)[:, 0], counts(3), atol=0.01)


def test_a_tile_of_a_fits_that_is_larger_than_the_file_can_fill_takes_no_room(tmp_path: Path) -> None:
    from astropy.io import fits as format

    hdu = format.CompImageHDU(counts(3).astype(np.int16), compression_type="RICE_1")
    format.HDUList([format.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    data = (tmp_path / "a.fits").read_bytes()
    at = data.index(b"ZTILE1  = ")
    (tmp_path / "a.fits").write_bytes(data[: at + 10] + str(2**32).rjust(20).encode() + data[at + 30 :])
    with pytest.raises(DataError, match=r"a\.fits: .* bytes expand to|a\.fits: an array of"):
        load_images(str(tmp_path / "a.fits"))


# ---------------------------------------------------------------------------------------------------------------- TIFF


@pytest.mark.usefixtures("nothing_said")
def test_a_page_unlike_the_first_takes_no_room(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", counts(4).astype(np.float32))
    data = path.read_bytes()
    at = [k for k in range(len(data)) if data[k : k + 8] == struct.pack("<HHI", 256, 4, 1)][2]  # ImageWidth of a page
    path.write_bytes(data[: at + 8] + struct.pack("<I", 160_628_752) + data[at + 12 :])
    with pytest.raises(DataError, match=r"a\.tif: pages of different sizes"):
        load_images(str(path))


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize(("tag", "value"), [("TileWidth", 2**20), ("TileLength", 16)])
def test_damaged_tiles_are_one_sentence(tmp_path: Path, tag: str, value: int) -> None:
    import tifffile

    path = tiff(tmp_path / "a.tif", counts(1, 64)[0], tile=(32, 32))
    with tifffile.TiffFile(path) as tif:
        entry = tif.pages[0].tags[tag]
        at = entry.valueoffset
    data = bytearray(path.read_bytes())
    data[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"^\S*a\.tif"):
        load_images(str(path))


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize("method", ["tiff_lzw", "jpeg"])
@pytest.mark.parametrize("inside", ["a.tif", "d"])
def test_libtiff_says_nothing_of_a_damaged_page(tmp_path: Path, method: str, inside: str) -> None:
    (tmp_path / "d").mkdir()
    data = encode(Image.fromarray((counts(1, 32)[0] // 16).astype(np.uint8)), "TIFF", compression=method)
    for path in (tmp_path / "a.tif", tmp_path / "d" / "a.tif"):
        path.write_bytes(
            data[:-200] + b"\xff" * 60 + data[-140:] if method == "jpeg" else data[:40] + b"\xff" * 60 + data[100:]
        )
    with pytest.raises(DataError, match=r"a\.tif.*damaged"):
        load_images(str(tmp_path / inside), holdout=0.0)


# -------------------------------------------------------------------------------------------------------------- others


@pytest.mark.usefixtures("nothing_said")
def test_nibabel_says_nothing_of_a_damaged_extension(tmp_path: Path) -> None:
    import nibabel

    volume = nibabel.Nifti1Image(counts(3).astype(np.int16).T, np.eye(4))
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a scan"))
    volume.to_filename(tmp_path / "a.nii")
    patched(tmp_path / "a.nii", struct.pack("<ii", 16, 6), struct.pack("<ii", 15, 6))
    assert len(load_images(str(tmp_path / "a.nii"), holdout=0.0)) == 3


@pytest.mark.usefixtures("nothing_said")
def test_signalling_nans_and_the_largest_floats_are_refused_without_a_warning(tmp_path: Path) -> None:
    images = counts(3).astype(np.float32)
    images.view(np.uint32)[1, 2, 3] = 0x7F800001
    with pytest.raises(DataError, match=r"a\.tif/0001: 1 of 256 values are missing"):
        load_images(str(tiff(tmp_path / "a.tif", images)))
    large = counts(3).astype(np.float64)
    large[1, 2, 3] = 1.7e308
    with pytest.raises(DataError, match=r"b\.tif/0001: values beyond what 32-bit floats hold"):
        load_images(f"{tiff(tmp_path / 'b.tif', large)}:range=0..1")


def test_a_name_that_breaks_a_line_breaks_no_sentence(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", counts(1)[0])
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "a\nb.tif")
        archive.writestr("dataset.csv", "file,sigma\nc.tif,0\n")
    with pytest.raises(DataError, match=r"no row for a\\nb\.tif \(1 of 1 images have none\)$"):
        open_source(str(tmp_path / "z.zip"))


def test_a_data_set_is_found_by_each_of_its_names_and_never_in_another_file(tmp_path: Path) -> None:
    import h5py

    images = counts(4)
    hdf5(tmp_path / "other.h5", images, "x")
    path = hdf5(tmp_path / "a.h5", images, "scan/raw", **{"scan/sigma": np.full(4, 60.0)})
    with h5py.File(path, "r+") as store:
        store["back"] = store["scan"]  # met first, in alphabetical order
        store["scan/elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        store["scan/soft"] = h5py.SoftLink("/scan/raw")
    for name in ("scan/raw", "back/raw"):
        loaded = load_images(f"{path}:/{name}", holdout=0.0)
        assert loaded.sigma_n is not None
        assert loaded.values is not None
        np.testing.assert_allclose(loaded.values.to_values(loaded.images)[:, 0], images, atol=0.01)
    for name in ("scan/elsewhere", "scan/soft", "scan/nothing"):
        with pytest.raises(UsageError, match=rf"no data set /{name} in it"):
            load_images(f"{path}:/{name}")


def test_a_file_that_ends_the_process_that_reads_it_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    images, ids = counts(4), np.arange(4)
    first = open_source(str(hdf5(tmp_path / "a.h5", images)))
    helper = next(item.helper for item in gc.get_objects() if isinstance(item, _Session) and "a.h5" in item.where)
    assert helper is not None
    assert first.read(ids).shape == (4, 1, 16, 16)
    helper.process.kill()
    for _ in range(2):
        with pytest.raises(DataError, match=r"^\S*a\.h5: damaged: the library for such files ends, hangs or takes"):
            first.read(ids)
    second = open_source(str(hdf5(tmp_path / "b.h5", images[::-1])))
    assert first.values is not None
    np.testing.assert_array_equal(first.values.to_pixels(images[::-1]), second.read(ids)[:, 0])


def test_a_helper_that_never_answers_is_ended_and_one_that_is_free_serves_again(tmp_path: Path) -> None:
    session = _Session("x")
    helper = session.helper
    assert helper is not None
    with pytest.raises(ValueError, match="Is a directory"):
        session.ask({"do": "open", "reader": "hdf5", "where": "x", "inside": "", "path": str(tmp_path)})
    session.close()
    again = _Session("y")
    assert again.helper is helper
    limit = "import signal; from ambient_train.data.readers import _aside as a; a._limit_time(0.2)\nwhile True: pass"
    assert subprocess.run([sys.executable, "-c", limit]).returncode == -signal.SIGPROF


# ------------------------------------------------------------------------------------------------------- the campaign


def torture(count: int, out: Path | None = None, only: str = "records") -> dict[str, Any]:
    """The campaign's result; nothing is said of a fault, since there is none."""
    said: list[str] = []
    result = files.torture(count, 5, out, said.append, only)
    assert said == []
    return result


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_refused_by_name_or_skipped(tmp_path: Path, name: str) -> None:
    table = READERS[name].samples()
    files.read_intact(READERS[name], table)
    drawn = [files.draw(5, name, k, table) for k in range(48)]
    found = confined.run_cases(tmp_path, [d.case for d in drawn])
    assert [(d, one) for d, one in zip(drawn, found, strict=True) if one["outcome"] not in confined.GOOD] == []


def test_the_campaign_continues_and_adds_up_reader_by_reader(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(TORTURE), "files", "--only", "records", "--count", "130", "--seed", "5"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(out.read_text()) == json.loads(done.stdout)
    assert json.loads(done.stdout)["counts"] == torture(130)["counts"]
    result = torture(260, out)  # continues what the command left
    assert json.loads(out.read_text()) == result
    assert sum(result["counts"].values()) == result["inputs"] == 260
    assert torture(260)["counts"] == result["counts"]
    both = torture(64, out, "statistics")
    assert both["readers"]["records"] == result["readers"]["records"]
    assert (both["inputs"], sum(both["counts"].values()), both["faults"]) == (324, 324, 0)
    both["readers"]["records"]["code"] = "of another version"
    out.write_text(json.dumps(both))
    again = torture(10, out)
    assert {name: one["inputs"] for name, one in again["readers"].items()} == {"records": 10, "statistics": 64}
    assert set(files.shares(100_000)) == set(READERS)
    assert sum(files.shares(100_000).values()) == 100_000
    assert min(files.shares(100_000).values()) >= 1_500


def test_the_first_import_of_a_module_writes_no_bytecode_that_would_be_taken_for_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "imported_here_first.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def read(spec: str, dest: Path) -> str:
        importlib.import_module("imported_here_first")
        return confined.READ

    case = confined.Case(0, "a.npy", {"a.npy": b"abcdef"}, read, confined.Limits())
    assert [one["outcome"] for one in confined.run_cases(tmp_path, [case])] == ["read"]
    assert not (tmp_path / "lib" / "__pycache__").exists()


def test_the_documentation_says_what_the_committed_campaign_found() -> None:
    result = json.loads(table.RESULT.read_text())
    written = (table.RESULT.parents[1] / "docs" / "reliability.md").read_text()
    assert table.sentence(result) in written
    assert "\n".join(table.rows(result)) in written
    assert set(result["readers"]) == set(READERS)
    assert result["faults"] == 0


def test_seals_and_hashes_can_be_made_to_fit_again(tmp_path: Path) -> None:
    whole = READERS["run"].samples()["checkpoint"].files
    weights = next(name for name in whole if name.endswith("ema.safetensors"))
    other = bytearray(whole[weights])
    other[-1] ^= 1
    edited = whole["run/manifest.json"].replace(b'"preset": "digits"', b'"preset": "small"')
    for damaged, data in ((weights, bytes(other)), ("run/manifest.json", edited)):
        for sealed in (False, True):
            files_now = {**whole, damaged: data}
            folder = tmp_path / f"{Path(damaged).name}-{sealed}"
            confined.write_files(folder, resealed(files_now, damaged) if sealed else files_now)
            if sealed:
                load_trained(folder / "in" / "run")
            else:
                with pytest.raises(DataError, match="checksum does not match"):
                    load_trained(folder / "in" / "run")


def _writes_beside(folder: Path) -> None:
    (folder / "in" / "x").write_text("x")


def _raw(message: str) -> DataError:
    error = DataError()
    error.args = (message,)
    return error


def _changes_what_it_reads(folder: Path) -> None:
    os.truncate(folder / "in" / "a.npy", 3)


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("read", lambda folder: None),
        ("crash", lambda folder: os.kill(os.getpid(), signal.SIGKILL)),
        ("slow", lambda folder: signal.pause()),
        ("memory", lambda folder: bytearray(3 * 2**30)),
        ("unexpected", lambda folder: {}["x"]),
        ("a sentence without the file", lambda folder: (_ for _ in ()).throw(DataError("damaged"))),
        ("no sentence", lambda folder: (_ for _ in ()).throw(_raw(f"{folder}/in/a.npy:\ndamaged"))),
        ("a long sentence", lambda folder: (_ for _ in ()).throw(_raw(f"{folder}/in/a.npy: " + "x" * 10**5))),
        ("words on the terminal", lambda folder: os.write(2, b"libtiff: strip 0")),
        ("outside DEST", _writes_beside),
        ("outside DEST", _changes_what_it_reads),
        ("outside DEST", lambda folder: (folder / "out" / "made.txt").write_text("x")),
    ],
)
def test_the_campaign_sees_every_fault_and_goes_on(tmp_path: Path, kind: str, act: Callable[[Path], object]) -> None:
    def read(spec: str, dest: Path) -> str:
        folder = Path(spec).parents[1]
        if folder.name == "case-1":
            act(folder)
        return confined.READ

    limits = confined.Limits(time_s=0.3 if kind == "slow" else 2, memory=2 * 2**30)
    cases = [confined.Case(k, "a.npy", {"a.npy": b"abcdef"}, read, limits) for k in range(3)]
    found = [one["outcome"] for one in confined.run_cases(tmp_path, cases)]
    assert found == ["read", kind, "read"]
