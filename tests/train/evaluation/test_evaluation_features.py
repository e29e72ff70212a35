"""Extractors: what goes in, what comes out, and that the hash is the features' identity."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.images import to_uint8
from ambient_train.data.load import load_images
from ambient_train.evaluation.extractors import smallcnn
from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.statistics import FeatureStatistics


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", split="heldout")


def test_every_uint8_value_survives_the_way_to_pixels_and_back():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(to_uint8(values / 127.5 - 1), values)
    np.testing.assert_array_equal(to_uint8(torch.from_numpy(values).float() / 127.5 - 1), values)
    assert to_uint8(values) is values


def test_values_outside_the_range_are_clipped_and_nan_is_refused():
    np.testing.assert_array_equal(to_uint8(np.array([[-3.0, 1.5]])), [[0, 255]])
    assert to_uint8(torch.tensor([[0.5]], dtype=torch.bfloat16)).dtype == np.uint8
    with pytest.raises(DataError, match="1 of 2 images"):
        to_uint8(np.array([[0.0], [np.nan]]))
    with pytest.raises(DataError, match="int64"):
        to_uint8(np.zeros((1, 1), np.int64))


def test_pixels_are_the_image_scaled_to_minus_one_and_one():
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), dtype=np.uint8)
    features = get_extractor("pixels")(images)
    np.testing.assert_allclose(features, images.reshape(7, -1) / 127.5 - 1, atol=1e-6)


def test_features_do_not_depend_on_batches_order_or_container(digits):
    extractor = get_extractor("smallcnn")
    images = digits.images[:60]
    whole = extractor(images)
    extractor.batch_size = 7
    np.testing.assert_allclose(extractor(torch.tensor(images)), whole, atol=1e-5)
    np.testing.assert_allclose(extractor(images[::-1].copy()), whole[::-1], atol=1e-5)
    assert whole.shape == (60, extractor.dim)


def test_labels_name_the_features_and_the_hash_follows_the_weights(monkeypatch):
    extractor = get_extractor("smallcnn")
    assert extractor.label == f"smallcnn:{extractor.hash}"
    assert len(extractor.hash) == 8
    assert extractor.hash == get_extractor("smallcnn").hash != get_extractor("pixels").hash
    state = load(smallcnn.weights_bytes())
    state["conv1.bias"][0] += 1e-6
    changed = save(state)
    monkeypatch.setattr(smallcnn, "weights_bytes", lambda: changed)
    assert get_extractor("smallcnn").hash != extractor.hash


def test_embedded_network_classifies_held_out_digits_as_its_card_says(digits):
    probabilities = get_extractor("smallcnn").probabilities(digits.images)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-9)
    accuracy = (probabilities.argmax(1) == digits.labels).mean()
    assert accuracy == pytest.approx(smallcnn.card()["heldout"]["digits"]["accuracy"], abs=1e-3)
    assert accuracy >= 0.98


def test_embedded_features_have_a_well_conditioned_covariance(digits):
    features = get_extractor("smallcnn")(load_images("digits", split="train").images)
    eigenvalues = np.linalg.eigvalsh(FeatureStatistics.from_features(features).cov)
    assert eigenvalues[-1] / eigenvalues[0] < 1000


def test_area_resize_keeps_the_mean_and_constant_images_stay_constant():
    for size in (1, 8, 12, 16, 28, 40):
        matrix = smallcnn.resize_matrix(size)
        torch.testing.assert_close(matrix.sum(1), torch.ones(16))
        if size % 16 == 0:
            torch.testing.assert_close(matrix.sum(0), torch.full((size,), 16 / size))
    torch.testing.assert_close(smallcnn.resize_matrix(16), torch.eye(16))
    whole = smallcnn.resize_matrix(28)
    torch.testing.assert_close(whole.sum(0), torch.full((28,), 16 / 28))


def test_colour_floats_and_wrong_shapes_are_refused_with_one_sentence():
    extractor = get_extractor("smallcnn")
    with pytest.raises(DataError, match=r"1 channel\(s\), not 3"):
        extractor(np.zeros((2, 3, 8, 8), np.uint8))
    with pytest.raises(DataError, match="uint8"):
        extractor(np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(DataError, match="shape"):
        extractor(np.zeros((1, 8, 8), np.uint8))
    with pytest.raises(UsageError, match="smallcnn"):
        get_extractor("inceptoin")
    with pytest.raises(UsageError, match="takes no file"):
        get_extractor("pixels:file")
    with pytest.raises(UsageError, match="needs a file"):
        get_extractor("torchscript")
    with pytest.raises(UsageError, match="names no file"):
        get_extractor("inception:")
    with pytest.raises(UsageError, match="probabilities"):
        get_extractor("pixels").probabilities(np.zeros((1, 1, 2, 2), np.uint8))
