"""Image sets: what each kind of source gives, its parts, its identities, its noise levels."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    cifar_batches,
    cifar_binary_files,
    cifar_python_files,
    edm_files,
    idx_bytes,
    png,
    rgb,
    write_folder,
    write_mnist_folder,
    write_tar,
    write_zip,
)

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.formats.cifar import load_plain_pickle
from ambient_train.data.load import load_images
from ambient_train.data.resize import area_resize


def test_digits_are_the_1797_of_scikit_learn_in_units_of_minus_one_to_one() -> None:
    from sklearn.datasets import load_digits

    digits = load_images("digits")
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == np.uint8
    np.testing.assert_array_equal(digits.labels, load_digits().target)
    pixels = digits.pixels()
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) == (-1, 1)
    np.testing.assert_allclose(pixels[:, 0], load_digits().images / 8 - 1, atol=0.5 / 127.5 + 1e-6)


def test_pixels_are_uint8_over_127_5_minus_1_for_every_value() -> None:
    ramp = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    digits = load_images("digits")
    np.testing.assert_array_equal(digits.pixels(), ramp[digits.images])
    np.testing.assert_array_equal(digits.pixels(np.array([5, 1])), digits.pixels()[[5, 1]])


@pytest.mark.parametrize(("spec", "share"), [("digits", 0.2), ("photos32", 0.1)])
def test_train_and_heldout_partition_all_at_the_default_share(spec: str, share: float) -> None:
    whole, train, heldout = (load_images(spec, split=s) for s in ("all", "train", "heldout"))
    assert sorted([*train.ids, *heldout.ids]) == list(whole.ids)
    assert abs(len(heldout) / len(whole) - share) < 4 * np.sqrt(share * (1 - share) / len(whole))


def test_holdout_depends_on_the_id_alone_and_is_nested_in_the_share() -> None:
    small, large = (set(load_images("digits", split="heldout", holdout=h).ids) for h in (0.1, 0.3))
    assert small < large
    assert len(load_images("digits", split="train", holdout=0)) == 1797
    with pytest.raises(UsageError, match="nothing is held out"):
        load_images("digits", split="heldout", holdout=0)


def test_max_images_is_nested_and_does_not_follow_the_order_of_the_source() -> None:
    small, large = (load_images("digits", max_images=n) for n in (50, 300))
    assert len(small) == 50
    assert set(small.ids) < set(large.ids)
    assert list(small.ids) == sorted(small.ids)
    assert small.ids.max() > 1000  # the first 50 images would end at 49
    np.testing.assert_array_equal(small.images, load_images("digits").images[small.ids])


def test_photos_are_520_disjoint_or_30294_strided_patches_of_the_photographs() -> None:
    from sklearn.datasets import load_sample_image

    patches = load_images("photos32")
    assert patches.images.shape == (520, 3, 32, 32)
    china = load_sample_image("china.jpg")
    np.testing.assert_array_equal(patches.images[21].transpose(1, 2, 0), china[32:64, 32:64])
    assert load_images("photos32:stride=4").images.shape == (30294, 3, 32, 32)
    for bad in ("photos32:stride=0", "photos32:stride=64", "photos32:foo", "digits:3"):
        with pytest.raises(UsageError):
            load_images(bad)


def test_heldout_patches_share_no_pixel_with_training_patches_even_where_patches_overlap() -> None:
    train, heldout = (load_images("photos32:stride=8", split=s) for s in ("train", "heldout"))
    per_row, per_photo = 77, 50 * 77  # (640 - 32)/8 + 1 columns, (427 - 32)//8 + 1 rows
    left = {name: s.ids % per_photo % per_row * 8 for name, s in (("train", train), ("heldout", heldout))}
    assert left["train"].max() + 32 <= left["heldout"].min()
    assert len(heldout) > 100


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_mnist_folder(tmp_path / "mnist")


@pytest.mark.parametrize("compressed", [True, False])
def test_mnist_folder_uses_its_own_heldout_part(tmp_path: Path, compressed: bool) -> None:
    root = write_mnist_folder(tmp_path / "m", compressed=compressed)
    train, heldout, whole = (load_images(str(root), split=s) for s in ("train", "heldout", "all"))
    assert (len(train), len(heldout), len(whole)) == (20, 7, 20)
    np.testing.assert_array_equal(whole.images, train.images)
    assert list(heldout.ids) == list(range(20, 27))
    assert heldout.labels is not None
    with pytest.raises(UsageError, match="held-out part of its own"):
        load_images(str(root), holdout=0.1)


def test_fashion_is_read_from_the_directory_of_the_environment_variable(mnist: Path, monkeypatch) -> None:
    monkeypatch.setenv("FASHION_MNIST_DIR", str(mnist))
    fashion = load_images("fashion", resolution=4)
    assert fashion.name == "fashion4"
    np.testing.assert_array_equal(fashion.images, area_resize(load_images("fashion").images, 4))
    monkeypatch.setenv("FASHION_MNIST_DIR", str(mnist / "nowhere"))
    with pytest.raises(DataError, match=r"dataset-fashion-mnist.*FASHION_MNIST_DIR"):
        load_images("fashion")


def test_single_idx_file_finds_the_labels_beside_it(mnist: Path) -> None:
    one = load_images(str(mnist / "train-images-idx3-ubyte.gz"))
    np.testing.assert_array_equal(one.images, load_images(str(mnist)).images)
    np.testing.assert_array_equal(one.labels, load_images(str(mnist)).labels)


def test_folder_and_zip_of_the_same_files_are_the_same_set(tmp_path: Path) -> None:
    images, labels = rgb(12), [3, 1, 0] * 4
    files = edm_files(images, labels)
    folder = load_images(str(write_folder(tmp_path / "f", files)))
    archive = load_images(str(write_zip(tmp_path / "f.zip", files, zipfile.ZIP_DEFLATED)))
    np.testing.assert_array_equal(folder.images, images)
    assert folder.labels is not None
    assert folder.labels.tolist() == labels
    assert folder.content_hash == archive.content_hash
    assert (folder.name, archive.name) == ("f", "f")


def test_content_hash_sees_pixels_labels_ids_and_noise_but_not_the_name() -> None:
    from dataclasses import replace

    base = load_images("digits", max_images=20)
    pixels, labels = base.images.copy(), base.labels.copy()
    pixels[3, 0, 0, 0] ^= 1
    labels[0] += 1
    changed = [
        replace(base, images=pixels),
        replace(base, labels=labels),
        replace(base, labels=None),
        replace(base, ids=base.ids + 1),
        replace(base, sigma_n=np.zeros(20, np.float32)),
        base.subset(slice(0, 19)),
    ]
    assert len({s.content_hash for s in [base, *changed]}) == 7
    assert replace(base, name="other").content_hash == base.content_hash


def test_subset_by_mask_index_and_slice_agree_and_keep_ids() -> None:
    digits = load_images("digits")
    mask = np.zeros(1797, bool)
    mask[10:20] = True
    a, b, c = digits.subset(mask), digits.subset(np.arange(10, 20)), digits.subset(slice(10, 20))
    assert a.content_hash == b.content_hash == c.content_hash
    assert list(a.ids) == list(range(10, 20))


def test_sub_folders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    images = rgb(4)
    names = ["zebra/1.png", "ant/2.png", "ant/deep/3.png", "bee/4.png"]
    root = write_folder(tmp_path / "t", {n: png(x) for n, x in zip(names, images, strict=True)})
    loaded = load_images(str(root))
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 0, 1, 2]
    np.testing.assert_array_equal(loaded.images, images[[1, 2, 3, 0]])


def test_numbered_folders_of_edm_are_no_classes(tmp_path: Path) -> None:
    files = {f"0000{k}/img{k:08d}.png": png(x) for k, x in enumerate(rgb(3))}
    assert load_images(str(write_folder(tmp_path / "t", files))).labels is None


def test_imagenet_tree_has_classes_below_train_and_val(tmp_path: Path) -> None:
    names = ["ILSVRC/train/n02/a.png", "ILSVRC/train/n01/b.png", "ILSVRC/val/n02/c.png"]
    root = write_folder(tmp_path / "t", {n: png(x) for n, x in zip(names, rgb(3), strict=True)})
    train, heldout = (load_images(str(root), split=s) for s in ("train", "heldout"))
    assert train.labels is not None
    assert heldout.labels is not None
    assert (train.labels.tolist(), heldout.labels.tolist()) == ([0, 1], [1])


def test_celeba_partition_gives_the_heldout_part(tmp_path: Path) -> None:
    files = {f"img_align_celeba/00000{i}.png": png(x) for i, x in enumerate(rgb(4))}
    files["list_eval_partition.txt"] = b"000000.png 0\n000001.png 1\n000002.png 2\n000003.png 0\n"
    root = write_folder(tmp_path / "celeba", files)
    assert list(load_images(str(root), split="heldout").ids) == [1, 2]
    assert load_images(str(root)).labels is None


def test_noise_levels_come_from_csv_sigma_npy_dataset_json_and_npz(tmp_path: Path) -> None:
    images = rgb(3)
    files = {f"{i}.png": png(x) for i, x in enumerate(images)}
    table = b"file,label,sigma\n2.png,cat,0.5\n0.png,dog,0\n1.png,dog,0.25\n"
    by_csv = load_images(str(write_folder(tmp_path / "csv", {**files, "dataset.csv": table})))
    assert by_csv.labels is not None
    assert by_csv.labels.tolist() == [1, 1, 0]
    np.save(tmp_path / "sigma.npy", np.array([0, 0.25, 0.5]))
    by_npy = load_images(
        str(write_folder(tmp_path / "npy", {**files, "sigma.npy": (tmp_path / "sigma.npy").read_bytes()}))
    )
    text = b'{"labels": null, "sigma": [["0.png", 0], ["1.png", 0.25], ["2.png", 0.5]]}'
    by_json = load_images(str(write_folder(tmp_path / "json", {**files, "dataset.json": text})))
    np.savez(tmp_path / "a.npz", images=images, sigma=np.array([0, 0.25, 0.5]))
    by_npz = load_images(str(tmp_path / "a.npz"))
    for loaded in (by_csv, by_npy, by_json, by_npz):
        assert loaded.sigma_n is not None
        assert loaded.sigma_n.tolist() == [0, 0.25, 0.5]
        np.testing.assert_array_equal(loaded.images, images)


def test_floats_are_taken_as_they_are_beyond_minus_one_and_one(tmp_path: Path) -> None:
    noisy = (2 * np.random.default_rng(0).standard_normal((5, 3, 8, 8))).astype(np.float32)
    np.savez(tmp_path / "n.npz", images=noisy, sigma=np.float32(0.5))
    loaded = load_images(str(tmp_path / "n.npz"))
    np.testing.assert_array_equal(loaded.pixels(), noisy)
    assert loaded.sigma_n is not None
    assert (loaded.sigma_n == 0.5).all()


def test_resizing_noisy_images_scales_their_noise_level_or_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "n.npz", images=rgb(4, 8), sigma=np.array([0, 0.2, 0.2, 0.4]))
    halved = load_images(str(tmp_path / "n.npz"), resolution=4)
    assert halved.sigma_n is not None
    np.testing.assert_allclose(halved.sigma_n, [0, 0.1, 0.1, 0.2], rtol=1e-6)
    with pytest.raises(DataError, match="correlate"):
        load_images(str(tmp_path / "n.npz"), resolution=6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
def test_array_layouts_are_recognised(tmp_path: Path, layout: str) -> None:
    images = rgb(5, channels=1 if layout == "NHW" else 3)
    stored = {"NCHW": images, "NHWC": images.transpose(0, 2, 3, 1), "NHW": images[:, 0]}[layout]
    np.save(tmp_path / "x.npy", stored)
    np.save(tmp_path / "f.npy", np.asfortranarray(stored))
    np.savez_compressed(tmp_path / "x.npz", stored)
    for name in ("x.npy", "f.npy", "x.npz"):
        np.testing.assert_array_equal(load_images(str(tmp_path / name)).images, images)


def test_cifar_python_and_binary_tarballs_hold_the_same_set(tmp_path: Path) -> None:
    batches = cifar_batches()
    python = str(write_tar(tmp_path / "cifar-10-python.tar.gz", cifar_python_files(batches)))
    binary = str(write_tar(tmp_path / "cifar-10-binary.tar", cifar_binary_files(batches)))
    for split, count in (("all", 20), ("heldout", 4)):
        a, b = load_images(python, split=split), load_images(binary, split=split)
        assert len(a) == count
        assert a.name == "cifar10"
        assert a.content_hash == b.content_hash
    np.testing.assert_array_equal(load_images(python, split="heldout").images.reshape(4, -1), batches["test_batch"][0])


def test_unpacked_cifar_folder_is_the_same_set(tmp_path: Path) -> None:
    files = cifar_python_files(cifar_batches())
    tarball = load_images(str(write_tar(tmp_path / "c.tar.gz", files)))
    folder = load_images(str(write_folder(tmp_path, files) / "cifar-10-batches-py"))
    assert folder.content_hash == tarball.content_hash


def test_links_to_folders_are_followed_and_loops_and_dead_links_are_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "store", {"1.png": png(rgb(1)[0])})
    root = write_folder(tmp_path / "set", {"a/0.png": png(rgb(1)[0])})
    (root / "b").symlink_to(tmp_path / "store")
    labels = load_images(str(root)).labels
    assert labels is not None
    assert labels.tolist() == [0, 1]
    (root / "a" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"dead\.png"):
        load_images(str(root))
    (root / "a" / "dead.png").unlink()
    (root / "a" / "up").symlink_to(root)
    with pytest.raises(DataError, match="link back"):
        load_images(str(root))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_pickles_of_older_protocols_are_read(tmp_path: Path, protocol: int) -> None:
    data = cifar_python_files(cifar_batches(), protocol)["cifar-10-batches-py/test_batch"]
    np.testing.assert_array_equal(load_plain_pickle(data, "x")[b"data"], cifar_batches()["test_batch"][0])


def test_pickles_of_python_2_are_read() -> None:
    # CIFAR-10 was written by Python 2: text and bytes are one type there (BINSTRING), with an array's bytes in it
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x02K\x03\x86"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    data = b"\x80\x02}(U\x04data" + array + dtype + b"\x89U\x06\x00\x01\x7f\x80\xfe\xfftbU\x06labels]K\x01au."
    assert pickle.loads(data, encoding="bytes")[b"labels"] == [1]  # the control: it is a pickle
    read = load_plain_pickle(data, "x")
    assert read["data"].tolist() == [[0, 1, 127], [128, 254, 255]]
    assert read["labels"] == [1]
    for shape in (b"K\x02K\x04\x86", b"K\x00\x8a\x09" + b"\x01" * 9 + b"\x86", b"NK\x03\x86"):
        with pytest.raises(DataError, match=r"^x: "):
            load_plain_pickle(data.replace(b"K\x02K\x03\x86", shape), "x")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"split": "test"}, "split"),
        ({"holdout": 1.0}, "holdout"),
        ({"holdout": -0.1}, "holdout"),
        ({"holdout": float("nan")}, "holdout"),
        ({"resolution": 7}, "even"),
        ({"resolution": 0}, "even"),
        ({"max_images": 0}, "max_images"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        load_images("digits", **options)


def _refusals(root: Path) -> dict[str, Path]:
    good = png(rgb(1)[0])
    float_images = np.full((3, 3, 8, 8), 200.0)
    np.savez(root / "floats255.npz", images=float_images)
    np.savez(root / "floats01.npz", images=np.random.default_rng(0).random((3, 3, 8, 8)))
    np.savez(root / "nan.npz", images=np.full((3, 3, 8, 8), np.nan))
    np.savez(root / "objects.npz", images=np.array([object()] * 3, dtype=object))
    np.savez(root / "nokey.npz", pictures=rgb(3))
    np.savez(root / "labels.npz", images=rgb(3), labels=np.arange(2))
    np.savez(root / "half.npz", images=rgb(3), labels=np.array([0, 0.5, 1]))
    np.savez(root / "sigma.npz", images=rgb(3), sigma=np.array([0, -1, 0]))
    np.save(root / "shape.npy", np.zeros((3, 8), np.uint8))
    np.save(root / "ints.npy", np.zeros((3, 8, 8), np.int32))
    (root / "idx3.idx").write_bytes(idx_bytes(rgb(3, channels=1)[:, 0])[:-1])
    (root / "file.txt").write_text("x")
    folder = {
        "empty": {},
        "notes": {"README.md": b"x"},
        "json": {"a.png": good, "dataset.json": b"{"},
        "jsonlist": {"a.png": good, "dataset.json": b"[]"},
        "jsonmissing": {"a.png": good, "dataset.json": b'{"labels": [["b.png", 1]]}'},
        "jsontext": {"a.png": good, "dataset.json": b'{"labels": [["a.png", "cat"]]}'},
        "jsondeep": {"a.png": good, "dataset.json": b"[" * 100000},
        "csv": {"a.png": good, "labels.csv": b"a,b\n1,2\n"},
        "csvmissing": {"a.png": good, "labels.csv": b"file,label\nb.png,1\n"},
        "csvsigma": {"a.png": good, "labels.csv": b"file,sigma\na.png,x\n"},
        "partition": {"a.png": good, "list_eval_partition.txt": b"a.png 7\n"},
    }
    for name, files in folder.items():
        (root / name).mkdir()
        write_folder(root / name, files)
    return {path.name: path for path in root.iterdir()}


REFUSED = [
    *("floats255.npz", "floats01.npz", "nan.npz", "objects.npz", "nokey.npz", "labels.npz", "half.npz", "sigma.npz"),
    *("shape.npy", "ints.npy", "idx3.idx", "file.txt", "empty", "notes", "json", "jsonlist", "jsonmissing", "jsontext"),
    *("jsondeep", "csv", "csvmissing", "csvsigma", "partition"),
]


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_sentence_naming_the_file(tmp_path: Path, name: str) -> None:
    path = _refusals(tmp_path)[name]
    with pytest.raises(DataError) as caught:
        load_images(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700  # the longest lists every kind that is read


def test_missing_path_names_the_built_in_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"digits, fashion, photos32"):
        load_images(str(tmp_path / "nowhere"))
