"""Files of numbers (TIFF, HDF5, FITS, NIfTI, PNG of 16 bits): every value comes in and goes out as it is."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import png, rgb, write_folder, write_zip
from invoke import ambient
from number_files import STACKS, counts, fits, gzipped, hdf5, nifti, pillow_png16, png16, tiff
from PIL import Image

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.formats import frames as frames_module
from ambient_train.data.formats.frames import FrameTree
from ambient_train.data.formats.png16 import decode_png16, encode_png16
from ambient_train.data.formats.trees import decode_threads
from ambient_train.data.load import load_images
from ambient_train.data.place import absolute, place, with_map
from ambient_train.data.prepare.check import check
from ambient_train.data.prepare.prepare import PrepareConfig, prepare
from ambient_train.data.readers import open_source
from ambient_train.data.values import ValueMap, find_range

TYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)


def values_in(spec: str) -> np.ndarray:
    """What the pixels of a set are in the numbers of its files, [N, C, H, W] float64."""
    loaded = load_images(spec, holdout=0.0)
    if loaded.values is None:
        return loaded.images.astype(np.float64)
    return loaded.values.to_values(loaded.images)


# ------------------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_value_of_a_stack_comes_in(tmp_path: Path, name: str, dtype: type) -> None:
    images = counts().astype(dtype) if dtype != np.uint8 else rgb(12, 16, channels=1)[:, 0]
    found = values_in(str(STACKS[name](tmp_path / name, images)))
    assert found.shape == (12, 1, 16, 16)
    np.testing.assert_allclose(found[:, 0], images, rtol=1e-6, atol=1e-3)
    assert (load_images(str(tmp_path / name), holdout=0.0).values is None) == (dtype == np.uint8)


def test_twelve_bit_counts_in_sixteen_bits_keep_their_levels_through_prepare(tmp_path: Path) -> None:
    images = counts(60, 32)
    for folder, write in (("tif16", tiff), ("png16", pillow_png16), ("float", tiff)):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images.astype(np.float32) if folder == "float" else images):
            write(tmp_path / folder / f"cell{i:03d}.{'png' if folder == 'png16' else 'tif'}", image)
        report = check(str(tmp_path / folder))
        assert report.usable
        assert (report.dtype, report.readable) == ("float32", 60)
        assert "become -1 to 1" in report.notes[0]
        prepare(PrepareConfig(source=str(tmp_path / folder), dest=tmp_path / f"{folder}.npz"))
        prepared = load_images(str(tmp_path / f"{folder}.npz"), holdout=0.0)
        assert prepared.values is not None
        assert np.array_equal(np.rint(prepared.values.to_values(prepared.images[:, 0])), images)
        assert prepared.content_hash == load_images(str(tmp_path / folder), holdout=0.0).content_hash
    refused = ambient("data", "prepare", tmp_path / "tif16", tmp_path / "o.zip", "--quiet")
    assert (refused.exit_code, "ends in .npz" in refused.stderr) == (3, True)
    assert not (tmp_path / "o.zip").exists()


def test_the_map_of_values_is_affine_exact_and_undone() -> None:
    made = ValueMap(100.0, 4100.0, "uint16", "tiff")
    np.testing.assert_array_equal(made.to_pixels(np.array([100, 2100, 4100, 8100])), np.float32([-1, 0, 1, 3]))
    every = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(made.to_own(made.to_pixels(every)), every)
    assert made.to_own(np.array([-9.0, 99.0])).tolist() == [0, 65535]  # beyond the type: its ends
    assert ValueMap.from_dict(json.loads(made.to_bytes().tobytes()), "x") == made
    for wrong in ({}, {"low": 1, "high": 1, "dtype": "uint8", "kind": "x"}, {**made.to_dict(), "dtype": "O"}):
        with pytest.raises(DataError):
            ValueMap.from_dict(wrong, "x")


def test_the_range_is_that_of_percentiles_or_the_one_that_is_given(tmp_path: Path) -> None:
    images = counts(40)
    images[0, 0, 0] = 65535  # a hot pixel does not settle the contrast
    spec = str(tiff(tmp_path / "a.tif", images))
    loaded = load_images(spec, holdout=0.0)
    assert loaded.values is not None
    assert [loaded.values.low, loaded.values.high] == np.percentile(images, [0.1, 99.9]).tolist()
    assert "reach from" in loaded.notes[0]
    assert loaded.images.max() > 20
    given = load_images(f"{spec}:range=0..4095", holdout=0.0)
    assert given.values is not None
    assert (given.values.low, given.values.high) == (0, 4095)
    wide = load_images(f"{spec}:range=0%..100%", holdout=0.0).values
    assert wide is not None
    assert (wide.low, wide.high) == (images.min(), 65535)
    for text in ("1", "4..1", "a..b", "1%..2", "-1%..5%", "0..1e400"):
        with pytest.raises(UsageError, match="range="):
            load_images(f"{spec}:range={text}")
    flat = str(tiff(tmp_path / "flat.tif", np.full((3, 8, 8), 7, np.uint16)))
    with pytest.raises(DataError, match=r"all values looked at are 7.*range=0..4095"):
        load_images(flat)
    assert load_images(f"{flat}:range=0..14", holdout=0.0).images.max() == 0
    with pytest.raises(DataError, match="finite"):
        find_range(lambda k: np.full((1, 2, 2), np.nan), 1, place("x"), "float32", "x", "x")


def test_a_place_is_a_path_a_data_set_and_a_range(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", counts(3))
    for spec, inside in ((str(path), ""), (f"{path}:/g/x", "/g/x"), (f"{path}:/g/x:range=-1..2.5", "/g/x")):
        found = place(spec)
        assert (found.path, found.inside) == (path, inside)
        assert place(str(found)) == found
    (tmp_path / "odd:range=1..2").mkdir()  # what exists is a path
    assert place(str(tmp_path / "odd:range=1..2")).range is None
    assert place(with_map(f"{path}:/x:range=0..1", 2.5, 1e6, None)).range == place(f"{path}:range=2.5..1e6").range
    assert absolute(str(tmp_path / "none")) is None
    assert absolute(f"{path}:/x") == f"{path.resolve()}:/x"


def test_arrays_of_other_units_are_read_where_a_range_is_given(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0.2, 0.8, (20, 8, 8))
    np.savez(tmp_path / "x01.npz", images=x.astype(np.float32), sigma=np.full(20, 0.1))
    with pytest.raises(DataError, match=r"range=0..1"):
        load_images(str(tmp_path / "x01.npz"))
    loaded = load_images(f"{tmp_path / 'x01.npz'}:range=0..1", holdout=0.0)
    np.testing.assert_allclose(loaded.images[:, 0], 2 * x - 1, atol=1e-6)
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n, 0.2, rtol=1e-6)  # levels are in the units of the data
    np.savez(tmp_path / "u16.npz", images=(x * 65535).astype(np.uint16))
    np.save(tmp_path / "u16.npy", (x * 65535).astype(np.uint16))
    for name in ("u16.npz", "u16.npy"):
        np.testing.assert_allclose(values_in(str(tmp_path / name))[:, 0], np.floor(x * 65535), atol=0.01)
    np.savez(tmp_path / "parts.npz", x_train=(x * 65535).astype(np.uint16), x_test=(x[:5] * 65535).astype(np.uint16))
    parts = open_source(str(tmp_path / "parts.npz"))
    assert (parts.count, int(parts.heldout.sum())) == (25, 5)  # type: ignore[union-attr]


# ----------------------------------------------------------------------------------------------------------- formats


def test_colours_and_planes_of_a_tiff_are_told_apart_by_its_axes(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 65536, (5, 16, 16, 3)).astype(np.uint16)
    found = values_in(str(tiff(tmp_path / "rgb.tif", colour)))
    np.testing.assert_allclose(found, colour.transpose(0, 3, 1, 2), atol=0.01)
    three = counts(3)  # three planes of grey are no colours
    assert values_in(str(tiff(tmp_path / "three.tif", three))).shape == (3, 1, 16, 16)
    hyper = counts(12).reshape(3, 4, 16, 16)
    spec = str(tiff(tmp_path / "hyper.tif", hyper, metadata={"axes": "TCYX"}, imagej=True))
    loaded = load_images(spec, holdout=0.0)
    assert len(loaded) == 12
    assert any("each plane" in note for note in loaded.notes)
    np.testing.assert_allclose(values_in(spec)[:, 0], hyper.reshape(12, 16, 16), atol=0.01)
    packed = values_in(str(tiff(tmp_path / "deflate.tif", counts(), compression="zlib")))
    np.testing.assert_allclose(packed[:, 0], counts(), atol=0.01)
    Image.fromarray(counts(1)[0]).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    np.testing.assert_allclose(values_in(str(tmp_path / "lzw.tif"))[0, 0], counts(1)[0], atol=0.01)


@pytest.mark.parametrize("absent", [0, 2])
def test_a_plane_that_is_announced_and_not_there_is_refused_and_is_no_black_image(tmp_path: Path, absent: int) -> None:
    there = [k for k in range(4) if k != absent]
    planes = "".join(f'<TiffData IFD="{i}" FirstZ="{z}" PlaneCount="1"/>' for i, z in enumerate(there))
    description = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="16" SizeY="16" '
        f'SizeZ="4" SizeC="1" SizeT="1">{planes}</Pixels></Image></OME>'
    )
    path = tiff(tmp_path / "a.ome.tif", counts(3), description=description, metadata=None)
    with pytest.raises(DataError, match=f"plane {absent} is announced and not there"):
        load_images(str(path))
    assert any(f"plane {absent} is announced" in p["problem"] for p in check(str(path)).problems)


def test_a_tiff_that_is_cut_off_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = tiff(tmp_path / "a.tif", counts()).read_bytes()
    for k in range(1, 9):
        (tmp_path / "b.tif").write_bytes(whole[: k * len(whole) // 9])
        with pytest.raises(DataError, match=r"b\.tif"):
            load_images(str(tmp_path / "b.tif"))
    assert capfd.readouterr() == ("", "")
    first = int.from_bytes(whole[4:8], "little")  # the last page is followed by the first
    last = whole.rfind((0).to_bytes(4, "little"))
    for at in range(last, 0, -1):
        circle = whole[:at] + first.to_bytes(4, "little") + whole[at + 4 :]
        (tmp_path / "c.tif").write_bytes(circle)
        if _chain(circle) is None:
            break
    with pytest.raises(DataError, match="in a circle"):
        load_images(str(tmp_path / "c.tif"))


def _chain(data: bytes) -> int | None:
    """Number of pages of a little-endian TIFF; None where they do not end."""
    at, met = int.from_bytes(data[4:8], "little"), []
    while at:
        if at in met:
            return None
        met.append(at)
        at += 2 + 12 * int.from_bytes(data[at : at + 2], "little")
        at = int.from_bytes(data[at : at + 4], "little")
    return len(met)


def test_a_data_set_of_an_hdf5_is_found_or_asked_for(tmp_path: Path) -> None:
    images = counts()
    nested = str(hdf5(tmp_path / "a.h5", images, "scan/raw", date=np.arange(3)))
    assert np.allclose(values_in(nested)[:, 0], images, atol=0.01)
    assert "not /date" in load_images(nested, holdout=0.0).notes[0]
    two = str(hdf5(tmp_path / "b.h5", images, "first", second=images + 1))
    with pytest.raises(UsageError, match=r"several data sets .*b\.h5:/first"):
        load_images(two)
    assert np.allclose(values_in(f"{two}:/second")[:, 0], images + 1, atol=0.01)
    with pytest.raises(UsageError, match="no data set /third"):
        load_images(f"{two}:/third")
    stated = str(hdf5(tmp_path / "c.h5", images, sigma=np.full(12, 60.0), labels=np.arange(12) % 2))
    loaded = load_images(stated, holdout=0.0)
    assert loaded.values is not None
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n * loaded.values.unit, 60, rtol=1e-6)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1] * 6
    with pytest.raises(UsageError, match="no data sets inside"):
        load_images(f"{tiff(tmp_path / 'a.tif', images)}:/x")


def test_attributes_of_an_hdf5_that_are_not_read_are_named(tmp_path: Path) -> None:
    import h5py

    path = hdf5(tmp_path / "a.h5", counts(), "raw/images")
    assert not [note for note in open_source(str(path)).notes if "attributes" in note]
    with h5py.File(path, "a") as store:
        store.attrs["microscope"] = "A"
        store["raw"].attrs["gain"] = 2.1
        store["raw/images"].attrs["sigma"] = 60.0
        store["raw/images"].attrs["CLASS"] = "IMAGE"
    (note,) = [note for note in open_source(str(path)).notes if "attributes" in note]
    assert "are not read: /@microscope, /raw@gain, /raw/images@sigma; noise levels are read from" in note


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_files_packed_by_fpack_come_in_and_go_out_packed_without_loss(tmp_path: Path, dtype: type) -> None:
    from astropy.io import fits as format

    from ambient_train.data.readers.fits import FORMAT

    values = counts().astype(dtype)
    packed = format.CompImageHDU(values, name="SCI", quantize_level=0, compression_type="GZIP_2")
    packed.header["OBJECT"] = "a field"
    path = tmp_path / "stack.fits.fz"
    format.HDUList([format.PrimaryHDU(), packed]).writeto(path)
    source = open_source(str(path))
    assert source.values is not None
    assert source.values.dtype == np.dtype(dtype).name
    np.testing.assert_array_equal([source.tree.raw(k)[0] for k in range(len(values))], values)  # type: ignore[union-attr]
    with open(path, "rb") as like:
        FORMAT.write(tmp_path / "back.fits.fz", values[:, None] + 1, like, "")
    with format.open(tmp_path / "back.fits.fz") as back:
        assert back[1].data.dtype == dtype
        np.testing.assert_array_equal(back[1].data, values + 1)
        assert back[1].header["OBJECT"] == "a field"
    (tmp_path / "set").mkdir()
    path.rename(tmp_path / "set" / "a.fits.fz")
    assert open_source(str(tmp_path / "set")).count == len(values)


@pytest.mark.parametrize("name", ["VAR", "ERR", "WHT"])
def test_the_variance_extension_of_a_fits_states_the_level(tmp_path: Path, name: str) -> None:
    images = counts().astype(np.float32)
    variance = np.full(images.shape, 3600.0)
    stated = {"VAR": variance, "ERR": np.sqrt(variance), "WHT": 1 / variance}[name]
    loaded = load_images(str(fits(tmp_path / "a.fits", images, **{name: stated})), holdout=0.0)
    assert loaded.values is not None
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n * loaded.values.unit, 60, rtol=1e-5)
    assert loaded.pattern is None
    assert any(f"from the extension {name}" in note for note in loaded.notes)
    uneven = variance * np.linspace(0.5, 1.5, 16)[:, None]
    loaded = load_images(str(fits(tmp_path / "b.fits", images, VAR=uneven)), holdout=0.0)
    assert loaded.pattern is not None
    assert loaded.sigma_n is not None
    assert loaded.values is not None
    read = loaded.sigma_n[:, None, None, None] * loaded.pattern * loaded.values.unit
    np.testing.assert_allclose(read[:, 0] ** 2, uneven, rtol=1e-4)
    stated[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="no finite noise"):
        load_images(str(fits(tmp_path / "c.fits", images, **{name: stated})))
    other = load_images(str(fits(tmp_path / "d.fits", images, VAR=variance[:3], DQ=images)), holdout=0.0)
    assert other.sigma_n is None
    assert any("VAR is not read" in note for note in other.notes)
    assert any("not VAR, DQ" in note for note in other.notes)


def test_a_named_extension_and_a_packed_fits_are_read(tmp_path: Path) -> None:
    images = counts()
    path = fits(tmp_path / "a.fits", images, SCI=images + 5)
    assert np.allclose(values_in(f"{path}:/sci")[:, 0], images + 5, atol=0.01)
    assert np.allclose(values_in(str(gzipped(path)))[:, 0], images, atol=0.01)
    with pytest.raises(UsageError, match="no image extension /x"):
        load_images(f"{path}:/x")


def test_slices_of_a_volume_are_its_planes_in_order_and_scaled(tmp_path: Path) -> None:
    import nibabel

    series = np.random.default_rng(0).integers(0, 4000, (10, 8, 3, 2)).astype(np.int16)
    volume = nibabel.Nifti1Image(series, np.eye(4))
    volume.to_filename(tmp_path / "a.nii.gz")
    found = open_source(str(tmp_path / "a.nii.gz"))
    assert found.count == 6
    assert found.values is not None
    plane = found.values.to_values(found.read(np.array([4])))
    np.testing.assert_allclose(plane[0, 0], series[:, :, 1, 1].T, atol=0.01)
    volume = nibabel.Nifti1Image(series[..., 0], np.eye(4))
    volume.header.set_slope_inter(0.5, 10)
    volume.to_filename(tmp_path / "b.nii")
    scaled = open_source(str(tmp_path / "b.nii"))
    assert scaled.values is not None
    planes = scaled.values.to_values(scaled.read(np.arange(3)))
    np.testing.assert_allclose(planes[:, 0], 10 + 0.5 * series[..., 0].transpose(2, 1, 0), atol=0.01)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (16, 9)])
def test_sixteen_bit_pngs_of_every_filter_are_unfiltered(channels: int, size: tuple[int, int]) -> None:
    import struct
    import zlib

    from ambient_train.data.formats.png import SIGNATURE, chunk

    height, width = size
    values = np.random.default_rng(0).integers(0, 65536, (channels, height, width)).astype(np.uint16)
    np.testing.assert_array_equal(decode_png16(encode_png16(values), "x"), values)
    rows = np.ascontiguousarray(values.transpose(1, 2, 0)).astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step, raw = 2 * channels, b""
    for y in range(height):  # a filter a row, byte by byte, as the specification says it
        kind, out = y % 5, bytearray()
        for i in range(rows.shape[1]):
            a = rows[y, i - step] if i >= step else 0
            b = rows[y - 1, i] if y else 0
            c = rows[y - 1, i - step] if y and i >= step else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((rows[y, i] - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
        raw += bytes([kind]) + bytes(out)
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if channels == 1 else 2, 0, 0, 0)
    data = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_png16(data, "x"), values)
    damaged = data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]
    with pytest.raises(DataError, match=r"^x: "):
        decode_png16(damaged, "x")


def test_grey_pngs_of_sixteen_bits_are_those_of_pillow(tmp_path: Path) -> None:
    for i, image in enumerate(counts(3)):
        pillow_png16(tmp_path / f"{i}.png", image)
        np.testing.assert_array_equal(decode_png16((tmp_path / f"{i}.png").read_bytes(), "x")[0], image)
        np.testing.assert_array_equal(np.asarray(Image.open(png16(tmp_path / "own.png", image))), image)
    (tmp_path / "eight.png").write_bytes(png(rgb(1)[0]))
    with pytest.raises(DataError, match="8 bits a channel"):
        load_images(str(tmp_path / "eight.png"))


# ----------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_stacks_has_levels_by_file_and_by_image(tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "d"
    root.mkdir()
    images = counts(12)
    for i, name in enumerate("abc"):
        tiff(root / f"{name}.tif", images[4 * i : 4 * i + 4])
    (root / "dataset.csv").write_text(
        "file,sigma\na.tif,60\nb.tif,0\n" + "".join(f"c.tif/{k:04d},{k}\n" for k in range(4))
    )
    spec = str(root)
    if packed:
        files = {p.name: p.read_bytes() for p in root.iterdir()}
        spec = str(write_zip(tmp_path / "d.zip", files, zipfile.ZIP_DEFLATED))
    loaded = load_images(spec, holdout=0.0)
    assert loaded.values is not None
    assert loaded.sigma_n is not None
    np.testing.assert_allclose(loaded.sigma_n * loaded.values.unit, [60] * 4 + [0] * 4 + [0, 1, 2, 3], atol=1e-4)
    np.testing.assert_allclose(values_in(spec)[:, 0], images, atol=0.01)
    assert (loaded.labels, loaded.classes) == (None, None)  # a file is no class


def test_a_folder_of_stacks_is_opened_file_by_file_whatever_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opening of a .gz unpacks all of it."""
    files, frames = 5, 30
    for k in range(files):
        nifti(tmp_path / f"{k}.nii.gz", counts(frames, seed=k))
    opened: list[str] = []
    original = frames_module.open_frames
    monkeypatch.setattr(frames_module, "open_frames", lambda *a: opened.append(a[2]) or original(*a))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    source = open_source(str(tmp_path))
    assert len(opened) == 2 * files  # once for their sizes, once for the range of their values
    opened.clear()
    source.read(np.arange(source.count))
    assert len(opened) == files
    opened.clear()
    assert check(str(tmp_path), workers=8).usable
    assert len(opened) == 3 * files
    assert decode_threads(source.tree) == decode_threads(source.tree, 8) == 1
    one = tmp_path / "0.nii.gz"  # the control: of one file, and of files of one image each, threads open none twice
    assert decode_threads(open_source(str(one)).tree) == decode_threads(None) == 8
    assert decode_threads(None, 3) == 3


def test_the_images_of_one_file_are_held_out_together(tmp_path: Path) -> None:
    for i in range(40):
        nifti(tmp_path / f"scan{i:02d}.nii", counts(5, seed=i))
    parts = [load_images(str(tmp_path), split=split, holdout=0.3) for split in ("train", "heldout")]
    files = [set((part.ids // 5).tolist()) for part in parts]
    assert not files[0] & files[1]
    assert len(parts[0]) + len(parts[1]) == 200
    assert any("held out together" in note for note in parts[0].notes)


def test_folders_of_numbers_have_classes_parts_and_pairs_like_others(tmp_path: Path) -> None:
    for part in ("Train", "TEST"):
        for name in ("cell", "dust"):
            folder = tmp_path / "s" / part / name
            folder.mkdir(parents=True)
            for i, image in enumerate(counts(4)):
                tiff(folder / f"{i}.tif", image)
    loaded = load_images(str(tmp_path / "s"))
    assert loaded.classes == ("cell", "dust")
    assert len(loaded) == 8
    assert len(load_images(str(tmp_path / "s"), split="heldout")) == 8
    for kind in ("clean", "noisy"):
        (tmp_path / "p" / kind).mkdir(parents=True)
        tiff(tmp_path / "p" / kind / "a.tif", counts(60))
    with pytest.raises(DataError, match=r"kinds of noise.*dataset\.csv.*`noisy,0.2` and `clean,0`"):
        load_images(str(tmp_path / "p"))
    (tmp_path / "p" / "dataset.csv").write_text("file,sigma\nnoisy,60\nclean,0\n")
    scenes = [
        set((load_images(str(tmp_path / "p"), split=s, holdout=0.3).ids % 60).tolist()) for s in ("train", "heldout")
    ]
    assert not scenes[0] & scenes[1]


def test_files_that_do_not_go_together_are_one_sentence(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", counts(2))
    tiff(tmp_path / "b.tif", counts(2).astype(np.float32))
    with pytest.raises(DataError, match=r"several types of values \(b\.tif: float32; a\.tif: uint16\)"):
        load_images(str(tmp_path))
    (tmp_path / "b.tif").unlink()
    tiff(tmp_path / "c.tif", counts(2, 32))
    with pytest.raises(DataError, match="32 x 32 grey, but"):
        load_images(str(tmp_path))
    report = check(str(tmp_path))
    assert [p["file"] for p in report.problems] == ["c.tif/0000"] or len(report.problems) == 1
    prepare(PrepareConfig(source=str(tmp_path), dest=tmp_path / "o.npz", resolution="8"))
    assert load_images(str(tmp_path / "o.npz"), holdout=0.0).images.shape == (4, 1, 8, 8)
    bad = counts(3).astype(np.float32)
    bad[1, 2, 3] = np.nan
    spec = str(tiff(tmp_path / "nan.tif", bad))
    with pytest.raises(DataError, match=r"nan\.tif/0001: 1 of 256 values are missing"):
        load_images(spec)
    assert check(spec).readable == 2
    skipped = prepare(PrepareConfig(source=spec, dest=tmp_path / "s.npz", skip_bad=True))
    assert (skipped.count, [name for name, _ in skipped.skipped]) == (2, ["0001"])


def test_a_zip_made_on_windows_has_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "w.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(rgb(6)):
            info = zipfile.ZipInfo("placeholder")
            info.filename = f"{['cats', 'dogs'][i % 2]}\\{i}.png"  # as some packers of Windows write it
            info.create_system = 0
            archive.writestr(info, png(image))
    same = write_folder(tmp_path / "f", {f"{['cats', 'dogs'][i % 2]}/{i}.png": png(x) for i, x in enumerate(rgb(6))})
    loaded = load_images(str(path), holdout=0.0)
    assert loaded.classes == ("cats", "dogs")
    assert loaded.content_hash == load_images(str(same), holdout=0.0).content_hash


@pytest.mark.parametrize(
    ("name", "module"), [("stack.tif", "tifffile"), ("stack.h5", "h5py"), ("stack.nii", "nibabel")]
)
def test_without_the_package_a_sentence_names_the_extra(
    tmp_path: Path, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = STACKS[name](tmp_path / name, counts(2))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{module}.*ambient-worth\[science\]"):
        load_images(str(path))


def test_readers_of_numbers_are_imported_when_such_a_file_is_met(tmp_path: Path) -> None:
    import subprocess

    write_folder(tmp_path / "f", {"a.png": png(rgb(1)[0])})
    code = (
        "import sys; from ambient_train.data.readers import open_source; "
        f"open_source({str(tmp_path / 'f')!r}); "
        "print([m for m in ('tifffile', 'h5py', 'astropy', 'nibabel', 'torch') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------------- there and back

TINY = ["--width", 8, "--channel-mult", "1,1", "--batch", 16, "--device", "cpu", "--n-eval", 40, "--n-denoise", 8]
TINY += ["--steps", 3, "--duration", 64]


def _read_back(path: Path) -> np.ndarray:
    tree = open_source(str(path)).tree
    assert isinstance(tree, FrameTree)
    return np.stack([tree.raw(k)[0] for k in range(len(tree.images))])


@pytest.mark.parametrize("name", ["stack.tif", "stack.h5", "stack.fits", "stack.nii.gz"])
def test_restored_and_generated_images_are_in_the_units_type_and_format_of_the_data(tmp_path: Path, name: str) -> None:
    images, stem = counts(60), name.partition(".")[0]
    path = STACKS[name](tmp_path / name, images)
    level = np.where(np.arange(60) % 2, 60.0, 0.0)
    np.save(tmp_path / f"{stem}.sigma.npy", level)
    run = tmp_path / "run"
    trained = ambient("train", "--data", path, *TINY, "--outdir", run, "--quiet")
    assert trained.exit_code == 0, trained.output
    values = json.loads((run / "manifest.json").read_text())["data"]["values"]
    assert values["dtype"] == "uint16"
    made = ambient("restore", run, "--data", path, "--samples", 0, "--outdir", tmp_path / "r", "--quiet")
    assert made.exit_code == 0, made.output
    back = _read_back(tmp_path / "r" / "restored" / name)
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back[level == 0], images[level == 0])  # clean ones as they were
    assert (back[level > 0] != images[level > 0]).any()
    with np.load(tmp_path / "r" / "restored.npz") as stored:
        ids, mean = stored["ids"], stored["images"][:, 0]
        clean = level[ids] == 0
        np.testing.assert_allclose(mean[clean], images[ids][clean], atol=0.01)
        np.testing.assert_allclose(stored["noise_before"], level[ids], rtol=1e-6)
        np.testing.assert_array_equal(np.rint(mean[~clean]).clip(0, 65535), back[ids][~clean])
    heldout = np.setdiff1d(np.arange(60), ids)  # of the run's own images those that it trained on are restored
    np.testing.assert_array_equal(back[heldout], images[heldout])
    assert f"{len(heldout)} images of these files" in (tmp_path / "r" / "result.json").read_text()
    again = load_images(str(tmp_path / "r" / "restored.npz"), holdout=0.0)
    assert again.values is not None
    assert (again.values.low, again.values.high) == (values["low"], values["high"])
    for form in ("png", "npz", "grid"):
        out = ambient("generate", run, "--seeds", "0-3", "--format", form, "--outdir", tmp_path / form, "--quiet")
        assert out.exit_code == 0, out.output
    own = sorted(p for p in (tmp_path / "png").iterdir() if p.suffix != ".json")
    assert len(own) == 4
    with np.load(tmp_path / "npz" / "images.npz") as stored:
        assert stored["images"].dtype == np.uint16
        np.testing.assert_array_equal(_read_back(own[2])[0], stored["images"][2, 0])


def test_two_sets_of_numbers_are_compared_by_one_map(tmp_path: Path) -> None:
    for name, images in (("a", counts(60)), ("b", counts(60, seed=1) // 2)):  # half as bright: far away
        np.savez(tmp_path / f"{name}.npz", images=images)

    def distance(other: str) -> float:
        result = ambient(
            *(
                "evaluate",
                tmp_path / "a.npz",
                "--reference",
                tmp_path / other,
                "--extractor",
                "pixels",
                "--metric",
                "fd",
            ),
            *("--json", "--quiet"),
        )
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["scores"][0]["value"]

    np.savez(tmp_path / "c.npz", images=counts(60, seed=1))  # control: as bright
    assert distance("b.npz") > 2 * distance("c.npz")


def test_other_files_are_restored_by_the_map_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for i, image in enumerate(counts(60)):
        pillow_png16(tmp_path / "d" / f"{i:02d}.png", image)
    (tmp_path / "d" / "dataset.csv").write_text("file,sigma\n" + "".join(f"{i:02d},60\n" for i in range(60)))
    run = tmp_path / "run"
    trained = ambient("train", "--data", tmp_path / "d", *TINY, "--outdir", run, "--quiet")
    assert trained.exit_code == 0, trained.output
    (tmp_path / "e").mkdir()
    for i in range(3):  # darker ones, whose own percentiles would be others
        pillow_png16(tmp_path / "e" / f"{i}.png", counts(3)[i] // 2)
    (tmp_path / "e" / "dataset.csv").write_text("file,sigma\n0,30\n1,30\n2,0\n")
    made = ambient("restore", run, "--data", tmp_path / "e", "--samples", 0, "--outdir", tmp_path / "r", "--json", "-q")
    assert made.exit_code == 0, made.output
    with np.load(tmp_path / "r" / "restored.npz") as stored:
        kept = json.loads(stored["values"].tobytes())
        np.testing.assert_allclose(stored["images"][2, 0], counts(3)[2] // 2, atol=0.01)
    assert kept["low"] == json.loads((run / "manifest.json").read_text())["data"]["values"]["low"]
    back = np.asarray(Image.open(tmp_path / "r" / "restored" / "2.png"))
    np.testing.assert_array_equal(back, counts(3)[2] // 2)
    assert np.asarray(Image.open(tmp_path / "r" / "restored" / "0.png")).dtype == np.uint16
