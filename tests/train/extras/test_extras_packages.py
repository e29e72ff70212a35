"""The packages of the extras themselves: what they read back is what was written, and what they hold is what is read.

The other tests replace them by stand-ins that take the documented calls.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import png, rgb
from tiny_run import expected_values

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.extras, pytest.mark.timeout(600)]


def ambient(home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with a home that is empty."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "COLUMNS": "200", **environment}
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=settings, check=False, timeout=300)


def trained(config: Path, out: Path, *more: object, **environment: str) -> subprocess.CompletedProcess[str]:
    found = ambient(
        out.parent, "train", "--config", config, "--outdir", out, "--device", "cpu", "-q", *more, **environment
    )
    assert found.returncode == 0, found.stderr
    return found


def test_tensorboards_own_reader_sees_every_metric_and_score_once_also_after_a_longer_run(
    tmp_path: Path, tiny_config: Path
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    trained(tiny_config, out, "--log", "tensorboard")
    trained(tiny_config, out, "--log", "tensorboard", "--duration", 128)
    reader = events.EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    found = {(tag, e.step): e.value for tag in reader.Tags()["scalars"] for e in reader.Scalars(tag)}
    wanted = expected_values(out)
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, rel=1e-6), key  # it keeps single precision
    count = sum(len(reader.Scalars(tag)) for tag in reader.Tags()["scalars"])
    assert count == len(wanted)


def test_wandb_offline_keeps_every_metric_and_score_in_its_run_file(tmp_path: Path, tiny_config: Path) -> None:
    pytest.importorskip("wandb")
    out = tmp_path / "run"
    trained(tiny_config, out, "--log", "wandb", WANDB_MODE="offline")
    (file,) = out.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[tuple[str, int], float] = {}
    for line in wandb_history(file):
        found |= {(k, int(line["_step"])): v for k, v in line.items() if not k.startswith("_")}
    wanted = expected_values(out)
    assert set(found) == set(wanted)
    assert all(found[key] == pytest.approx(value, rel=1e-12) for key, value in wanted.items())


def wandb_history(file: Path) -> Iterator[dict[str, Any]]:
    """The lines that were logged. A run file is a log of LevelDB (blocks of 32 KiB; records of checksum, length, type
    and data) after a header of seven bytes, of the messages that wandb itself defines."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind not in (1, 4):  # the first or a middle part
            continue
        record, whole = wandb_internal_pb2.Record.FromString(whole), b""
        if record.WhichOneof("record_type") == "history":
            line = {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
            yield {"_step": record.history.step.num, **line}


def test_lmdb_of_the_package_itself_is_trained_on(tmp_path: Path, tiny_config: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(tmp_path / "real"), map_size=2**22)
    images = rgb(64)
    with environment.begin(write=True) as transaction:
        for i, x in enumerate(images):
            transaction.put(f"{i:04d}".encode(), png(x))
    environment.close()
    found = ambient(tmp_path, "data", "check", tmp_path / "real", "--json")
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert report["readable"] == 64
    np.testing.assert_allclose(report["mean"], images.astype(float).mean((0, 2, 3)) / 127.5 - 1, atol=1e-6)


def test_datasets_from_parquet_on_this_machine(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images, folder = rgb(20), tmp_path / "pets"
    kinds = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "id": datasets.Value("int64")}
    )
    for part, rows in (("train", range(14)), ("test", range(14, 20))):
        columns = {"img": [{"bytes": png(images[i]), "path": None} for i in rows], "label": [i % 2 for i in rows]}
        table = datasets.Dataset.from_dict({**columns, "id": list(rows)}, features=kinds)
        folder.mkdir(exist_ok=True)
        table.to_parquet(folder / f"{part}-00000-of-00001.parquet")
    code = (
        "import sys, numpy as np\n"
        "from ambient_train.data.load import load_images\n"
        "for part in ('train', 'heldout'):\n"
        "    found = load_images(sys.argv[1], split=part)\n"
        "    np.savez(f'{sys.argv[2]}/{part}.npz', images=found.images, labels=found.labels, names=found.classes)\n"
        "    print(found.name, found.notes)\n"
    )
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, f"hf:{folder}", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, env=settings, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    assert "pets" in found.stdout
    assert "the columns id are not read" in found.stdout
    for part, rows in (("train", slice(0, 14)), ("heldout", slice(14, 20))):
        held = np.load(tmp_path / f"{part}.npz")
        np.testing.assert_array_equal(held["images"], images[rows])
        assert held["labels"].tolist() == [i % 2 for i in range(20)][rows]
        assert held["names"].tolist() == ["cat", "dog"]
    refused = ambient(tmp_path, "data", "check", f"hf:{tmp_path / 'nothing'}", HF_HUB_OFFLINE="1")
    assert refused.returncode == 3
    assert "cannot be loaded" in refused.stderr


TORCHVISION = """
class _Anything(type):
    pass
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything(name, (), {})
"""
SCORE = """
import sys, numpy as np, torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Kind
torch.manual_seed(0)
own, Kind.load_state_dict = Kind.load_state_dict, lambda self, state: None
torch.save({}, sys.argv[1])
network = Kind("a", ["2048"], feature_extractor_weights_path=sys.argv[1])
Kind.load_state_dict = own
torch.save(network.state_dict(), sys.argv[1])
from ambient_train.evaluation.features import get_extractor
x = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
extractor = get_extractor("inception:" + sys.argv[1])
features, probabilities = extractor.with_probabilities(x)
with torch.no_grad():
    direct = network.eval()(torch.from_numpy(x))[0].numpy()
np.testing.assert_allclose(features, direct, rtol=1e-4, atol=1e-5)
np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-9)
print(features.shape, probabilities.shape, extractor.metric_name)
"""


def test_torch_fidelitys_inception_with_random_weights_scores_images(tmp_path: Path) -> None:
    """The wiring, not the numbers, which need the published file. torchvision is replaced where it does not import:
    torch-fidelity names it when imported, and the network uses nothing of it."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    path = [str(ROOT)]
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False).returncode:
        for name in ("", "datasets", "transforms", "transforms/functional", "models"):
            folder = tmp_path / "instead" / "torchvision" / name
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text(TORCHVISION)
        path.append(str(tmp_path / "instead"))
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-c", SCORE, str(tmp_path / "random.pth")]
    found = subprocess.run(command, capture_output=True, text=True, env=settings, check=False, timeout=500)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split("\n")[-2] == "(4, 2048) (4, 1008) fd"
