"""The script that trains the embedded features: what it writes is the function that it trained."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ambient_theory.shared.errors import DataError
from ambient_train.data.load import load_images
from ambient_train.evaluation.extractors import smallcnn

SCRIPT = Path(__file__).parents[3] / "experiments" / "train_features.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_folding_batch_normalisation_changes_nothing(script):
    torch.manual_seed(0)
    twin = script["TrainingTwin"]().train()
    for norm in twin.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    for _ in range(3):
        twin(torch.randn(32, 1, 16, 16))
    twin.eval()
    x = torch.randn(9, 1, 16, 16)
    features, logits = twin(x)
    folded = twin.folded()
    torch.testing.assert_close(folded(x), features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded.logits(folded(x)), logits, rtol=1e-4, atol=1e-5)


def test_shifts_move_whole_images_by_at_most_one_pixel(script):
    images = torch.full((200, 1, 16, 16), -1.0)
    images[:, :, 5, 9] = 1.0
    moved = script["shifted"](images, torch.Generator().manual_seed(0))
    places = moved.flatten(1).argmax(1)
    assert set(places.tolist()) == {y * 16 + x for y in (4, 5, 6) for x in (8, 9, 10)}
    assert (moved.sum((1, 2, 3)) == images.sum((1, 2, 3))).all()


def test_the_correlation_penalty_is_zero_for_uncorrelated_and_one_for_equal_features(script):
    penalty = script["correlation_penalty"]
    signs = torch.tensor([[a, b, a * b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    assert penalty(signs).item() == pytest.approx(0, abs=1e-12)
    assert penalty(signs[:, :1].repeat(1, 4)).item() == pytest.approx(1)


def test_the_card_names_the_command_and_the_definition_of_the_embedded_weights():
    card = smallcnn.card()
    assert card["definition"] == smallcnn.DEFINITION
    assert "experiments/train_features.py" in card["command"]
    assert card["parameters"] == sum(p.numel() for p in smallcnn.SmallCNN().parameters())
    assert card["heldout"]["digits"]["accuracy"] >= 0.98
    assert card["heldout"]["fashion 8x8"]["accuracy"] >= 0.80


@pytest.mark.slow
def test_a_short_training_writes_weights_and_a_card(script, tmp_path, monkeypatch):
    try:
        fashion = load_images("fashion", split="heldout", resolution=8)
    except DataError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(sys, "argv", ["train_features.py", "--epochs", "0.3", "--output", str(tmp_path)])
    threads = torch.get_num_threads()
    try:
        script["main"]()
    finally:
        torch.set_num_threads(threads)
    card = json.loads((tmp_path / "smallcnn.json").read_text())
    network = smallcnn.load_smallcnn((tmp_path / "smallcnn.safetensors").read_bytes())
    logits = network.logits(network(smallcnn.canonicalise(torch.tensor(fashion.images))))
    accuracy = float((logits.argmax(1).numpy() - 10 == fashion.labels).mean())
    assert accuracy == pytest.approx(card["heldout"]["fashion 8x8"]["accuracy"], abs=1e-3)
    assert accuracy > 0.6
    assert np.isfinite(logits.numpy()).all()
