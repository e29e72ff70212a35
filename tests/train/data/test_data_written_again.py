"""Files with restored images in them: type, layout, axes, headers and everything else as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from number_files import counts

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.passed_over import suffix
from ambient_train.data.formats.written_again import numbers_of, put_back
from ambient_train.data.load import in_values, load_images
from ambient_train.data.prepare.prepare import PrepareConfig, prepare
from ambient_train.data.readers import open_source
from ambient_train.data.readers._numbers import formats

N = 6


def again(path: Path, change: int = 0) -> Path:
    """The file written with all its images, `change` added to each value."""
    source, new = open_source(str(path)), path.with_name(f"new-{path.name}")
    images = np.stack([source.tree.raw(k) for k in range(source.count)])  # type: ignore[union-attr]
    with open(path, "rb") as like:
        formats()[suffix(path.name)][1].write(new, (images + change).astype(images.dtype), like, "")
    return new


@pytest.mark.parametrize("kind", ["ImageJ", "OME", "shaped", "plain"])
def test_stacks_keep_their_axes_byte_order_and_description(tmp_path: Path, kind: str) -> None:
    import tifffile

    values, path = counts(12).reshape(3, 2, 2, 16, 16), tmp_path / ("a.ome.tif" if kind == "OME" else "a.tif")
    options: dict[str, Any] = {"resolution": (10.0, 5.0), "photometric": "minisblack"}
    if kind == "ImageJ":
        options |= {"imagej": True, "metadata": {"axes": "TZCYX", "unit": "um", "spacing": 0.5, "Labels": ["a"] * 12}}
    elif kind == "OME":
        options |= {"metadata": {"axes": "TZCYX", "PhysicalSizeX": 0.1, "Channel": {"Name": ["red", "green"]}}}
    elif kind == "shaped":
        options |= {"metadata": {"axes": "TZCYX"}, "byteorder": ">"}
    else:
        options |= {"metadata": None, "description": "from our microscope", "byteorder": ">"}
    tifffile.imwrite(path, values, **options)
    with tifffile.TiffFile(path) as old, tifffile.TiffFile(again(path, 1)) as new:
        assert new.series[0].axes == old.series[0].axes
        np.testing.assert_array_equal(new.asarray(), old.asarray() + 1)
        assert new.byteorder == old.byteorder
        assert (new.imagej_metadata, new.ome_metadata) == (old.imagej_metadata, old.ome_metadata)
        for tag in ("XResolution", "YResolution", "ImageDescription"):
            mine, theirs = (None if tag not in f.pages[0].tags else f.pages[0].tags[tag].value for f in (old, new))
            assert mine == theirs, tag


def test_channels_that_become_images_of_their_own_are_named(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", counts(4), imagej=True, metadata={"axes": "CYX"})
    assert "those of its 4 channels too" in open_source(str(tmp_path / "a.tif")).notes[0]
    tifffile.imwrite(tmp_path / "b.tif", counts(4), imagej=True, metadata={"axes": "ZYX"})
    assert "channels" not in " ".join(open_source(str(tmp_path / "b.tif")).notes)


def test_an_hdf5_keeps_its_other_data_sets_and_attributes_but_not_what_states_the_noise(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as store:
        store["raw/images"], store["raw/sigma"], store["raw/labels"] = counts(N), np.full(N, 60.0), np.arange(N) % 2
        store["other/times"] = np.arange(N)
        store.attrs["microscope"], store["raw"].attrs["gain"], store["raw/images"].attrs["unit"] = "A", 2.1, "counts"
    with h5py.File(again(tmp_path / "a.h5", 1)) as store:
        np.testing.assert_array_equal(store["raw/images"], counts(N) + 1)
        assert store["raw/images"].dtype == np.uint16
        np.testing.assert_array_equal(store["other/times"], np.arange(N))
        np.testing.assert_array_equal(store["raw/labels"], np.arange(N) % 2)
        assert sorted(store["raw"]) == ["images", "labels"]
        assert (store.attrs["microscope"], store["raw"].attrs["gain"]) == ("A", 2.1)
        assert store["raw/images"].attrs["unit"] == "counts"


def test_a_fits_keeps_its_other_extensions_but_not_what_states_the_noise(tmp_path: Path) -> None:
    from astropy.io import fits

    values = counts(N).astype(np.float32)
    primary = fits.PrimaryHDU()
    primary.header["TELESCOP"] = "A"
    units = [("SCI", values), ("ERR", np.full_like(values, 60)), ("DQ", np.zeros(values.shape, np.int16))]
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="LOG")
    fits.HDUList([primary, *(fits.ImageHDU(data, name=name) for name, data in units), table]).writeto(
        tmp_path / "a.fits"
    )
    with fits.open(again(tmp_path / "a.fits", 1)) as new:
        assert [hdu.name for hdu in new] == ["PRIMARY", "SCI", "DQ", "LOG"]
        assert new[0].header["TELESCOP"] == "A"
        np.testing.assert_array_equal(new["SCI"].data, values + 1)
        assert new["LOG"].data["a"].tolist() == [1, 2]


@pytest.mark.parametrize("version", ["Nifti1Image", "Nifti2Image"])
def test_a_nifti_keeps_the_whole_numbers_that_it_stores_with_their_scale(tmp_path: Path, version: str) -> None:
    import nibabel

    volume = getattr(nibabel, version)(counts(12).reshape(3, 4, 16, 16).astype(np.int16).T, np.diag([2, 2, 3, 1]))
    volume.header.set_slope_inter(0.25, -100)
    volume.header.set_xyzt_units("mm", "sec")
    volume.to_filename(tmp_path / "a.nii")
    old, new = (nibabel.load(path) for path in (tmp_path / "a.nii", again(tmp_path / "a.nii", 1)))
    assert type(new) is type(old)
    assert (new.get_data_dtype(), new.dataobj.slope, new.dataobj.inter) == (np.int16, 0.25, -100)
    np.testing.assert_array_equal(new.dataobj.get_unscaled(), old.dataobj.get_unscaled() + 4)  # 1 is 4 of 0.25
    np.testing.assert_array_equal(new.affine, old.affine)
    assert new.header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize("layout", ["[N, H, W]", "[N, C, H, W]", "[N, H, W, C]"])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int32", "float16", ">f8"])
def test_arrays_get_images_back_in_their_type_and_layout(dtype: str, layout: str) -> None:
    plain = np.random.default_rng(0).integers(0, 200, (N, 3, 8, 8)).astype(dtype)
    array = {"[N, H, W]": plain[:, 0], "[N, C, H, W]": plain, "[N, H, W, C]": plain.transpose(0, 2, 3, 1)}[layout]
    new = np.random.default_rng(1).uniform(-1, 1, (1 if layout == "[N, H, W]" else 3, 8, 8)).astype(np.float32)
    out = put_back(array, {3: new}, numbers_of(array.dtype, None))
    assert (out.dtype, out.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(np.delete(out, 3, 0), np.delete(array, 3, 0))
    numbers = np.rint(127.5 * new + 127.5) if dtype == "uint8" else new
    expected = {"[N, H, W]": numbers[0], "[N, C, H, W]": numbers, "[N, H, W, C]": numbers.transpose(1, 2, 0)}[layout]
    np.testing.assert_array_equal(out[3], expected.astype(array.dtype))


def test_complex_arrays_get_both_parts_back() -> None:
    array = np.zeros((N, 8, 8), np.complex64)
    out = put_back(array, {1: np.stack([np.full((8, 8), 0.5), np.full((8, 8), -0.25)])}, numbers_of(array.dtype, None))
    assert out.dtype == np.complex64
    assert (out[1] == 0.5 - 0.25j).all()
    assert not np.delete(out, 1, 0).any()


@pytest.mark.parametrize("name", ["a.npz", "parts.npz", "a.npy"])
def test_a_file_of_arrays_is_written_again_with_all_but_its_noise(tmp_path: Path, name: str) -> None:
    path, values = tmp_path / name, counts(12)
    if name == "a.npy":
        np.save(path, values)
        np.save(tmp_path / "a.sigma.npy", np.full(12, 60.0))
    elif name == "a.npz":
        np.savez_compressed(path, images=values, sigma=np.full(12, 60.0), std=np.ones(3), names=np.array(["a"] * 12))
    else:
        np.savez(path, train_images=values[:8], test_images=values[8:], train_var=np.ones(8), test_var=np.ones(4))
    source = open_source(str(path))
    assert source.file is not None
    assert source.values is not None
    pixels, new = source.read(np.array([2, 9])), tmp_path / f"new{path.suffix}"
    source.file.write(new, {2: pixels[1], 9: pixels[0]})
    expected = values.copy()
    expected[[2, 9]] = expected[[9, 2]]
    if name == "a.npy":
        made = np.load(new)
    else:
        with np.load(new) as held:
            assert set(held) == ({"images", "std", "names"} if name == "a.npz" else {"train_images", "test_images"})
            made = held["images"] if name == "a.npz" else np.concatenate([held["train_images"], held["test_images"]])
    assert made.dtype == np.uint16
    np.testing.assert_array_equal(made, expected)


def test_prepared_numbers_go_through_another_map_by_the_values_that_they_were(tmp_path: Path) -> None:
    import tifffile

    maps = []
    for k in range(2):
        tifffile.imwrite(tmp_path / f"{k}.tif", counts(12, seed=k) + 500 * k, photometric="minisblack")
        np.save(tmp_path / f"{k}.sigma.npy", np.full(12, 60.0))
        prepare(PrepareConfig(source=str(tmp_path / f"{k}.tif"), dest=tmp_path / f"p{k}.npz"))
        maps.append(load_images(str(tmp_path / f"p{k}.npz"), holdout=0.0).values)
    assert maps[0] != maps[1]
    raw, prepared = (load_images(in_values(str(tmp_path / name), maps[0]), holdout=0.0) for name in ("1.tif", "p1.npz"))
    np.testing.assert_allclose(prepared.images, raw.images, atol=1e-5)
    np.testing.assert_allclose(prepared.sigma_n, raw.sigma_n, rtol=1e-5)  # type: ignore[arg-type]
    assert in_values(str(tmp_path / "p0.npz"), maps[0]) == str(tmp_path / "p0.npz")
    source = open_source(in_values(str(tmp_path / "p1.npz"), maps[0]))
    assert source.file is not None
    source.file.write(tmp_path / "new.npz", {0: source.read(np.arange(1))[0]})
    with np.load(tmp_path / "new.npz") as new, np.load(tmp_path / "p1.npz") as old:  # in the pixels of its own map
        np.testing.assert_allclose(new["images"], old["images"], atol=1e-5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((3, 8, 8), bool), "store False and True as uint8, 0 and 255"),
        (np.where(np.arange(192) == 70, np.nan, 0.5).reshape(3, 8, 8), r"1 values are not finite, in 1 images \(1\)"),
        (np.where(np.arange(192) == 130, np.inf, 0.5).reshape(3, 8, 8), r"in 1 images \(2\): a missing pixel"),
    ],
)
def test_values_that_are_no_pixels_are_refused_with_what_to_do(tmp_path: Path, images: np.ndarray, words: str) -> None:
    np.savez(tmp_path / "a.npz", images=images)
    for tail in ("", ":range=0..1"):
        with pytest.raises(DataError, match=words):
            open_source(f"{tmp_path / 'a.npz'}{tail}")
