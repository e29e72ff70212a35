"""`ambient restore` from a run to files: what is restored, what passes unchanged, what is refused, what survives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from groups import ranks, values
from PIL import Image
from typer.testing import CliRunner, Result

from ambient_theory.shared.errors import DivergedError
from ambient_theory.shared.files import exclusive_lock
from ambient_train.data.images import to_uint8
from ambient_train.data.load import load_images
from ambient_train.evaluation.restoration import NL_MEANS, WIENER, psnr
from ambient_train.interchange.load import load_trained
from ambient_train.settings.restore import RestoreOptions
from ambient_train.tasks import restore as task
from ambient_train.tasks import restore_files
from ambient_train.tasks.restore_files import lossless_name
from cli import app

SIGMA, SHORT = 0.4, ("--samples", 4, "--steps", 4, "--device", "cpu")
TINY = """
data = "digits"
duration_nimg = 96
batch = 16
precision = "fp32"
lr_ramp_nimg = 32
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
[evaluation]
n = 40
extractors = ["pixels"]
metrics = ["fd"]
denoise = 0
best = false
sampler = { steps = 2, sigma_max = 20.0 }
"""


def ambient(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def trained(folder: Path, *options: object) -> Path:
    """A run directory."""
    config = folder / "tiny.toml"
    config.write_text(TINY)
    found = ambient("train", "--config", config, "--outdir", folder / "run", "--device", "cpu", "-q", *options)
    assert found.exit_code == 0, found.output
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on 40 clean and 24 noisy digits."""
    options = ("--sigma", SIGMA, "--max-images", 64, "--n-clean", 40, "--n-noisy", 24)
    return trained(tmp_path_factory.mktemp("restore"), *options)


def restore(run: Path, out: Path, *options: object) -> Result:
    return ambient("restore", run, "--outdir", out, *SHORT, *options)


def arrays(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "restored.npz") as stored:
        return dict(stored)


def write_noisy(
    path: Path, n: int = 6, sigma: float = SIGMA, side: int = 8, channels: int = 1
) -> dict[str, np.ndarray]:
    """An .npz of noisy images in which every other one is clean."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(-1, 1, (n, channels, side, side)).astype(np.float32)
    levels = np.where(np.arange(n) % 2, np.float32(sigma), np.float32(0))
    y = (clean + levels[:, None, None, None] * rng.normal(size=clean.shape)).astype(np.float32)
    held = {"images": y, "sigma": levels}
    np.savez(path, **held)
    return {**held, "clean": clean}


# ------------------------------------------------------------------------------------------------------ what comes out


def test_own_noisy_images_are_restored_and_clean_ones_pass_unchanged(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = restore(run, out, "--json", "--quiet")
    assert found.exit_code == 0, found.output
    answer, held = json.loads(found.stdout), arrays(out)
    assert (answer["images"], answer["noisy"], answer["clean"]) == (64, 24, 40)
    source = load_images("digits", split="train", max_images=64)
    assert held["ids"].tolist() == source.ids.tolist()
    originals, noisy = source.pixels(), held["noise_before"] > 0
    assert noisy.sum() == 24
    for name in ("images", "sample", "sample_mean", "q05", "q95"):
        assert held[name].dtype == np.float32
        assert np.array_equal(held[name][~noisy], originals[~noisy])
        assert not np.isclose(held[name][noisy], originals[noisy]).all(axis=(1, 2, 3)).any()
    assert (held["std"][~noisy] == 0).all()
    assert (held["std"][noisy] > 0).all()
    assert (held["q05"][noisy] < held["q95"][noisy]).all()
    scores = json.loads((out / "scores.json").read_text())
    assert scores == answer["scores"]
    assert scores["images"] == 24
    assert scores["psnr_db"]["posterior mean"]["value"] == pytest.approx(
        psnr(held["images"][noisy], originals[noisy]).mean()
    )
    # the noisy images are those of training: 24 x 64 squared normal numbers have a relative error of sqrt(2/1536)
    expected = 20 * np.log10(2 / SIGMA)
    assert abs(scores["psnr_db"]["noisy image"]["value"] - expected) < 5 * 10 / np.log(10) * np.sqrt(2 / 1536) + 0.1
    assert scores["coverage"]["promised"] == pytest.approx(3 / 5)
    assert {p.name for p in out.iterdir()} == {
        *("restoration.json", "restored.npz", "result.json", "scores.json", "grid.png", "lock")
    }
    with Image.open(out / "grid.png") as picture:
        assert picture.size == (5 * 50 + 2, 8 * 50 + 2)  # noisy, mean, sample, deviation, original


def test_restored_arrays_are_a_data_set_again(run: Path, tmp_path: Path) -> None:
    assert restore(run, tmp_path / "out", "--quiet").exit_code == 0
    again = load_images(str(tmp_path / "out" / "restored.npz"))
    assert np.array_equal(again.pixels(), arrays(tmp_path / "out")["images"])
    assert again.labels is not None
    assert not again.noise_summary()


def test_the_posterior_mean_alone(run: Path, tmp_path: Path) -> None:
    found = restore(run, tmp_path / "out", "--samples", 0, "--json", "--quiet")
    held = arrays(tmp_path / "out")
    assert set(held) == {"images", "ids", "labels", "classes", "noise_before"}
    assert "coverage" not in json.loads(found.stdout)["scores"]
    assert restore(run, tmp_path / "full", "--quiet").exit_code == 0
    np.testing.assert_array_equal(held["images"], arrays(tmp_path / "full")["images"])


def test_samples_are_kept_on_demand_and_are_what_the_summaries_are_of(run: Path, tmp_path: Path) -> None:
    assert restore(run, tmp_path / "out", "--keep-samples", "--quiet").exit_code == 0
    held = arrays(tmp_path / "out")
    assert held["samples"].shape == (64, 4, 1, 8, 8)
    np.testing.assert_array_equal(held["samples"][:, 0], held["sample"])
    np.testing.assert_allclose(held["samples"].std(1, ddof=1), held["std"], atol=1e-5)


def test_float_images_of_another_source_stay_floats_and_keep_their_order(run: Path, tmp_path: Path) -> None:
    given = write_noisy(tmp_path / "noisy.npz")
    found = restore(run, tmp_path / "out", "--data", tmp_path / "noisy.npz", "--json", "--quiet")
    assert found.exit_code == 0, found.output
    held = arrays(tmp_path / "out")
    assert np.array_equal(held["images"][::2], given["images"][::2])
    assert held["noise_before"].tolist() == given["sigma"].tolist()
    network = load_trained(run).network
    expected = network(torch.from_numpy(given["images"][1::2]), torch.full((3,), SIGMA)).detach().numpy()
    np.testing.assert_allclose(held["images"][1::2], expected, atol=1e-5)
    assert json.loads(found.stdout)["scores"] is None
    assert not (tmp_path / "out" / "scores.json").exists()


def test_originals_of_another_source_give_scores(run: Path, tmp_path: Path) -> None:
    given = write_noisy(tmp_path / "noisy.npz")
    np.save(tmp_path / "clean.npy", given["clean"])
    options = ("--data", tmp_path / "noisy.npz", "--originals", tmp_path / "clean.npy", "--json", "--quiet")
    scores = json.loads(restore(run, tmp_path / "out", *options).stdout)["scores"]
    assert scores["images"] == 3
    assert scores["psnr_db"]["noisy image"]["value"] == pytest.approx(
        psnr(given["images"][1::2], given["clean"][1::2]).mean()
    )
    assert "within half a grey level" not in scores["coverage"]  # the originals are floats


def test_noise_written_down_is_restored_like_the_noise_of_the_run(run: Path, tmp_path: Path) -> None:
    """`data corrupt` writes what training adds: the same image, id and level give the same numbers."""
    made = trained(tmp_path, "--sigma", SIGMA, "--corruption", 0.5)
    written = tmp_path / "written.npz"
    found = ambient("data", "corrupt", "digits", written, "--sigma", SIGMA, "--share", 0.5, "--quiet")
    assert found.exit_code == 0, found.output
    one = ("--samples", 0, "--quiet")
    assert restore(made, tmp_path / "own", *one).exit_code == 0
    assert restore(made, tmp_path / "other", "--data", written, *one).exit_code == 0
    own, other = arrays(tmp_path / "own"), arrays(tmp_path / "other")
    assert len(other["ids"]) == 1797  # the held-out part, too
    assert other["heldout"].sum() == 1797 - len(own["ids"])
    np.testing.assert_array_equal(other["noise_before"][own["ids"]], own["noise_before"])
    np.testing.assert_allclose(other["images"][own["ids"]], own["images"], atol=1e-5)


def test_heldout_images_are_noised_here_by_the_rule_of_training(run: Path, tmp_path: Path) -> None:
    options = ("--heldout", "--max-images", 10, "--json", "--quiet")
    answer = json.loads(restore(run, tmp_path / "a", *options).stdout)
    assert (answer["noisy"], answer["clean"], answer["levels"]) == (10, 0, [pytest.approx(SIGMA)])
    heldout = load_images("digits", split="heldout")
    assert set(arrays(tmp_path / "a")["ids"].tolist()) <= set(heldout.ids.tolist())
    louder = json.loads(restore(run, tmp_path / "b", *options, "--sigma", 0.8).stdout)
    gap = answer["scores"]["psnr_db"]["noisy image"]["value"] - louder["scores"]["psnr_db"]["noisy image"]["value"]
    assert gap == pytest.approx(20 * np.log10(2), abs=1e-3)  # the same noise, twice as loud


def test_files_keep_their_names_and_clean_ones_their_bytes(run: Path, tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    table = ["file,sigma"]
    for k, name in enumerate(["a.png", "b.png", "sub/c.png", "sub/d.bmp"]):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / name)
        table.append(f"{name},{0 if k % 2 == 0 else SIGMA}")
    (folder / "dataset.csv").write_text("\n".join(table) + "\n")
    out = tmp_path / "out"
    found = restore(run, out, "--data", folder, "--quiet")
    assert found.exit_code == 0, found.output
    files = sorted(p.relative_to(out / "restored").as_posix() for p in (out / "restored").rglob("*") if p.is_file())
    assert files == ["a.png", "b.png", "sub/c.png", "sub/d.bmp"]
    for clean in ("a.png", "sub/c.png"):
        assert (out / "restored" / clean).read_bytes() == (folder / clean).read_bytes()
    for row, name in ((1, "b.png"), (3, "sub/d.bmp")):
        with Image.open(out / "restored" / name) as image:
            assert np.array_equal(np.asarray(image), to_uint8(arrays(out)["images"][row])[0])


def test_names_of_files_never_meet() -> None:
    taken = {"a.png", "a.jpg", "b.jpg", "c.jpg", "c.bmp"}
    assert [lossless_name(n, taken) for n in sorted(taken)] == ["a.jpg.png", "a.png", "b.png", "c.bmp", "c.jpg.png"]


def test_a_run_of_noisy_images_only_says_what_it_cannot_know(tmp_path: Path) -> None:
    made = trained(tmp_path, "--sigma", SIGMA, "--max-images", 40, "--corruption", 1.0)
    found = restore(made, tmp_path / "out", "--json")
    assert "saw no clean image" in found.stderr
    assert "below sigma 0.4" in json.loads(found.stdout)["notes"][0]


def test_a_conditional_network_is_told_the_class_of_each_image(tmp_path: Path) -> None:
    made = trained(tmp_path, "--sigma", SIGMA, "--max-images", 40, "--corruption", 0.5, "--cond")
    assert restore(made, tmp_path / "out", "--quiet").exit_code == 0
    network = load_trained(made).network
    found = restore(made, tmp_path / "other", "--data", "digits", "--sigma", SIGMA, "--max-images", 5, "--quiet")
    assert found.exit_code == 0, found.output
    held = arrays(tmp_path / "other")
    pixels = load_images("digits").pixels(held["ids"])
    labels = torch.nn.functional.one_hot(torch.from_numpy(held["labels"]), network.label_dim)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels), torch.full((5,), SIGMA), class_labels=labels).numpy()
    np.testing.assert_allclose(held["images"], expected, atol=1e-5)
    write_noisy(tmp_path / "unlabelled.npz")
    refused = restore(made, tmp_path / "none", "--data", tmp_path / "unlabelled.npz")
    assert (refused.exit_code, "these images have none" in refused.stderr) == (3, True), refused.stderr


# --------------------------------------------------------------------------------------------- the same numbers always


def test_batches_change_nothing_but_the_last_bits(run: Path, tmp_path: Path) -> None:
    for name, batch in (("a", 256), ("b", 256), ("c", 7)):
        assert restore(run, tmp_path / name, "--batch", batch, "--quiet").exit_code == 0
    a, b, c = (arrays(tmp_path / name) for name in "abc")
    for name in a:
        assert np.array_equal(a[name], b[name]), name
        if a[name].dtype == np.float32:
            np.testing.assert_allclose(a[name], c[name], atol=1e-4)


def in_fork(before: Callable[[], object], *arguments: object) -> int:
    """Exit status of the command in a forked process; `before` is called there first."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            torch.set_num_threads(1)
            before()
            app([str(a) for a in arguments])
        except SystemExit as leave:
            status = int(leave.code or 0)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dies_with(number: int, when: Callable[[Any], bool]) -> Callable[[], None]:
    """A `before` for `in_fork` that sends a signal to the process when its progress has come so far."""

    def listen(progress: Any) -> None:
        if when(progress):
            os.kill(os.getpid(), number)

    def before() -> None:
        task.progress_listener = lambda quiet: contextlib.nullcontext(listen)  # type: ignore[assignment]

    return before


@pytest.mark.parametrize(("phase", "done"), [("restoring", 12), ("restoring", 24), ("scoring", 1)])
def test_a_killed_restoration_continues_and_ends_with_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, done: int
) -> None:
    monkeypatch.setattr(restore_files, "ROWS", 16)  # chunks of 4 images
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert restore(run, whole, "--quiet").exit_code == 0
    kill = dies_with(signal.SIGKILL, lambda p: p.phase == phase and p.done >= done)
    assert in_fork(kill, "restore", run, "--outdir", out, *SHORT) == -signal.SIGKILL
    chunks, written = out / "chunks", done // 4 if phase == "restoring" else 6
    assert len(list(chunks.glob("*.npz"))) == written
    assert not (out / "result.json").exists()
    damaged = sorted(chunks.glob("*.npz"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    computed: list[int] = []
    write = restore_files.RestorationFolder.write_chunk
    monkeypatch.setattr(
        restore_files.RestorationFolder, "write_chunk", lambda self, k, a: (computed.append(k), write(self, k, a))
    )
    assert restore(run, out, "--quiet").exit_code == 0
    assert computed == [1, *range(written, 6)]
    assert (out / "restored.npz").read_bytes() == (whole / "restored.npz").read_bytes()
    assert (out / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()
    assert not chunks.exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR2, 75)])
def test_a_signal_leaves_with_its_code_and_the_same_command_continues(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    monkeypatch.setattr(restore_files, "ROWS", 16)
    leave = dies_with(number, lambda p: p.done >= 8)
    assert in_fork(leave, "restore", run, "--outdir", tmp_path / "out", *SHORT) == status
    assert len(list((tmp_path / "out" / "chunks").glob("*.json"))) == 2
    assert restore(run, tmp_path / "out", "--quiet").exit_code == 0


def test_the_same_command_again_is_done_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = restore(run, out, "--json")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.iterdir() if p.name != "lock"}
    again = restore(run, out, "--json")
    assert again.stdout == first.stdout
    assert "already done" in again.stderr
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.iterdir() if p.name != "lock"} == before
    (out / "restored.npz").unlink()
    assert restore(run, out, "--json").stdout == first.stdout
    assert (out / "restored.npz").read_bytes() == before[out / "restored.npz"][1]


@pytest.mark.multiproc
def test_two_ranks_share_the_chunks_and_write_the_same_bytes(run: Path, tmp_path: Path) -> None:
    options = RestoreOptions(samples=100, steps=3, device="cpu")  # ten images a chunk: three chunks
    alone = task.restore(run, tmp_path / "one", options, quiet=True)
    found = values(ranks(2, of_rank, str(run), str(tmp_path / "two"), options))
    assert alone is not None
    assert found == [{**alone.to_dict(), "directory": str(tmp_path / "two")}, None]
    assert (tmp_path / "two" / "restored.npz").read_bytes() == (tmp_path / "one" / "restored.npz").read_bytes()


def of_rank(world: Any, run: str, out: str, options: RestoreOptions) -> dict[str, Any] | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "join_group", lambda device: contextlib.nullcontext(world))
        found = task.restore(run, Path(out), options, quiet=True)
    return None if found is None else found.to_dict()


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--steps", 5), "steps 4, asked 5"),
        (("--seed", 1), "seed 0, asked 1"),
        (("--max-images", 60), "images"),
        (("--heldout",), "images"),
    ],
)
def test_a_folder_of_another_restoration_is_refused(
    run: Path, tmp_path: Path, changed: tuple[object, ...], words: str
) -> None:
    out = tmp_path / "out"
    assert restore(run, out, "--quiet").exit_code == 0
    before = (out / "restored.npz").read_bytes()
    refused = restore(run, out, *changed)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert (out / "restored.npz").read_bytes() == before


def test_a_folder_of_another_run_or_of_other_things_is_refused_and_a_copy_of_the_run_is_the_run(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert restore(run, out, "--quiet").exit_code == 0
    (tmp_path / "b").mkdir()
    other = trained(
        tmp_path / "b", "--sigma", SIGMA, "--max-images", 64, "--n-clean", 40, "--n-noisy", 24, "--lr", 1e-4
    )
    refused = restore(other, out)
    assert (refused.exit_code, "weights" in refused.stderr) == (2, True)
    assert ambient("export", run, tmp_path / "exported", "-q").exit_code == 0
    assert "already done" in restore(tmp_path / "exported", out).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    refused = restore(run, tmp_path / "full")
    assert (refused.exit_code, "holds no restoration" in refused.stderr) == (2, True)


@pytest.fixture(scope="module")
def correlated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on 20 clean digits and 44 with correlated noise."""
    options = ("--sigma", SIGMA, "--max-images", 64, "--n-clean", 20, "--n-noisy", 44)
    return trained(tmp_path_factory.mktemp("correlated"), *options, "--noise", "correlated:0.8")


def test_filters_beside_the_network_know_the_noise_or_are_left_out(correlated: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.random.default_rng(0).uniform(0.5, 1.5, (8, 8)))
    options = ("--sigma", SIGMA, "--max-images", 64, "--n-clean", 20, "--n-noisy", 44)
    mapped = trained(tmp_path, *options, "--noise", f"variance-map:{tmp_path / 'map.npy'}")
    for run, left in ((correlated, NL_MEANS), (mapped, f"{WIENER} and {NL_MEANS}")):
        out = tmp_path / run.parent.name
        found = restore(run, out, "--sweeps", 2, "-q")
        assert found.exit_code == 0, found.output
        assert f"which is not white: {left}" in " ".join(found.stdout.split())
        scores = json.loads((out / "scores.json").read_text())["psnr_db"]
        assert (WIENER in scores) == (run == correlated)
        if run == correlated:
            assert scores[WIENER]["value"] > scores["noisy image"]["value"] + 1


def test_white_noise_restored_by_a_run_on_other_noise_is_said(correlated: Path, tmp_path: Path) -> None:
    held = write_noisy(tmp_path / "level.npz")
    spectrum = np.ones((8, 5)) * np.linspace(2, 1, 5)
    np.savez(tmp_path / "spectrum.npz", images=held["images"], sigma=held["sigma"], spectrum=spectrum)
    for name, expected in (("level", True), ("spectrum", False)):
        found = restore(correlated, tmp_path / name, "--data", tmp_path / f"{name}.npz", "--sweeps", 2)
        assert found.exit_code == 0, found.output
        said = "restored as of white noise, and run was trained on noise that is not (correlated:0.8)"
        assert (said in " ".join(found.stderr.split())) == expected, found.stderr


def test_originals_are_in_the_units_of_the_noisy_images(run: Path, tmp_path: Path) -> None:
    """A network of 8 bits has no map of values: noisy images and originals of 16 bits share the one that is found."""
    rng, level = np.random.default_rng(0), 400.0
    clean = rng.uniform(1000, 1800, (40, 8, 8))
    noisy = np.clip(clean + level * rng.standard_normal(clean.shape), 0, 65535)
    np.save(tmp_path / "noisy.npy", noisy.round().astype(np.uint16))
    np.save(tmp_path / "clean.npy", clean.round().astype(np.uint16))
    np.save(tmp_path / "noisy.sigma.npy", np.full(40, level))
    asked = ("--data", tmp_path / "noisy.npy", "--originals", tmp_path / "clean.npy", "--json", "-q")
    found = restore(run, tmp_path / "out", *asked)
    assert found.exit_code == 0, found.output
    unit = load_images(str(tmp_path / "noisy.npy")).values.unit  # type: ignore[union-attr]
    stated = found.stdout and json.loads(found.stdout)["scores"]["psnr_db"]["noisy image"]
    # rounding to whole counts and clipping at 0 change a level of 400 by less than .2 %
    assert abs(stated["value"] - np.mean(psnr(noisy / unit, clean / unit))) < 0.05
    assert stated["value"] == pytest.approx(20 * np.log10(2 / (level / unit)), abs=4 * stated["stderr"] + 0.1)


@pytest.fixture(scope="module")
def of_counts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A run of clean and noisy counts of gain 2; counts [120, 8, 8] and their means."""
    folder, rng = tmp_path_factory.mktemp("counts"), np.random.default_rng(5)
    means = np.repeat(rng.uniform(200, 4000, (120, 1, 1)), 64, 1).reshape(120, 8, 8)
    counts = 2.0 * rng.poisson(means / 2.0)
    images = np.where(np.arange(120)[:, None, None] % 2, counts, means)
    np.savez(folder / "both.npz", images=images, sigma=np.arange(120) % 2)
    return trained(folder, "--data", f"{folder / 'both.npz'}:range=0..4500:gain=2.0"), counts, means


Counts = tuple[Path, np.ndarray, np.ndarray]


def test_averages_of_restored_counts_are_those_of_samples_in_counts(of_counts: Counts, tmp_path: Path) -> None:
    run, counts, _ = of_counts
    np.save(tmp_path / "noisy.npy", np.minimum(counts[:6], 2 * np.arange(4)[:, None, None].repeat(2, 0)[:6]))
    asked = ("--data", f"{tmp_path / 'noisy.npy'}:gain=2.0", "-q")
    found = restore(run, tmp_path / "out", *asked, "--keep-samples")
    assert found.exit_code == 0, found.output
    held = arrays(tmp_path / "out")
    np.testing.assert_allclose(held["sample_mean"], held["samples"].mean(1), rtol=1e-5)
    np.testing.assert_allclose(held["std"], held["samples"].std(1, ddof=1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(held["q50"], np.quantile(held["samples"], 0.5, axis=1, method="weibull"), rtol=1e-5)
    written = np.load(tmp_path / "out" / "restored" / "noisy.npy")
    np.testing.assert_allclose(written, held["images"][:, 0], rtol=1e-4, atol=1e-3)
    alone = restore(run, tmp_path / "alone", *asked[:2], "--samples", 0, "--json")
    assert "restored counts are the way back of a transformed mean" in alone.stderr
    assert (arrays(tmp_path / "alone")["images"] <= held["images"] + 1e-3).all()  # the way back is convex


def test_counts_of_another_gain_than_the_runs_are_refused(of_counts: Counts, tmp_path: Path) -> None:
    run, counts, _ = of_counts
    np.save(tmp_path / "noisy.npy", counts[:6])
    refused = restore(run, tmp_path / "out", "--data", f"{tmp_path / 'noisy.npy'}:gain=8.0", "-q")
    assert (refused.exit_code, "gain 8.0" in refused.stderr, "gain 2.0" in refused.stderr) == (3, True, True)
    assert not (tmp_path / "out").exists()


def test_originals_of_counts_must_say_that_they_are_clean(of_counts: Counts, tmp_path: Path) -> None:
    """Counts without stated levels are noisy, so originals of counts would never be compared with anything."""
    known, counts, means = of_counts
    np.save(tmp_path / "noisy.npy", counts[:8])
    np.save(tmp_path / "clean.npy", means[:8])
    asked = ("--data", tmp_path / "noisy.npy", "--originals", tmp_path / "clean.npy", "--json", "-q")
    refused = restore(known, tmp_path / "out", *asked)
    assert (refused.exit_code, "say that these are clean" in refused.stderr) == (3, True), refused.output
    np.save(tmp_path / "clean.sigma.npy", np.zeros(8))
    found = restore(known, tmp_path / "out", *asked)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["scores"]["psnr_db"]["noisy image"]["value"] > 20


def test_a_second_process_is_refused(run: Path, tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "out" / "lock") as held:
        assert held
        refused = restore(run, tmp_path / "out")
    assert (refused.exit_code, "in use by another process" in refused.stderr) == (2, True)


def bad_data(folder: Path) -> dict[str, tuple[tuple[object, ...], int, str]]:
    """Options, exit code and words of the sentence, by what is wrong."""
    write_noisy(folder / "loud.npz", sigma=25.0)
    write_noisy(folder / "large.npz", side=16)
    write_noisy(folder / "colour.npz", channels=3)
    held = write_noisy(folder / "good.npz")
    np.savez(folder / "bytes.npz", images=held["images"] * 127.5 + 300, sigma=held["sigma"])
    np.savez(folder / "far.npz", images=held["images"] * 100, sigma=held["sigma"])
    one = held["images"].copy()
    one[2, ..., 0, 0] = 5
    np.savez(folder / "one.npz", images=one, sigma=held["sigma"])
    np.savez(folder / "unstated.npz", images=held["images"])
    np.savez(folder / "clean.npz", images=held["clean"], sigma=np.zeros(6))
    np.savez(folder / "maps.npz", images=held["images"], sigma=np.eye(8)[None].repeat(len(held["images"]), 0))
    np.savez(folder / "negative.npz", images=held["images"], sigma=-held["sigma"])
    np.save(folder / "few.npy", held["clean"][:4])
    np.save(folder / "counts.npy", np.arange(len(held["clean"]) * 64).reshape(-1, 8, 8).astype(np.uint16))

    def data(name: str, *more: object) -> tuple[object, ...]:
        return ("--data", folder / name, *more)

    return {
        "noisier than any level": (
            data("loud.npz:range=-1..1"),
            3,
            "knows levels up to 20 in units of [-1, 1] (25 grey levels",
        ),
        "another size": (data("large.npz"), 3, "16 x 16 pixels"),
        "channels": (data("colour.npz"), 3, "3 channel(s)"),
        "range of bytes": (data("bytes.npz"), 3, "units of [-1, 1]"),
        "range": (data("far.npz"), 3, "are not in units of [-1, 1]: say which values"),
        "range of one image": (data("one.npz"), 3, "1 image(s) reach beyond what their noise explains"),
        "levels missing": (data("unstated.npz"), 2, "give --sigma"),
        "nothing noisy": (data("clean.npz"), 2, "nothing to restore"),
        "maps": (data("maps.npz"), 3, "a missing pixel has no noise level"),
        "negative levels": (data("negative.npz"), 3, ">= 0"),
        "levels twice": (data("good.npz", "--sigma", 0.2), 2, "leave it out"),
        "originals of other images": (data("good.npz", "--originals", folder / "few.npy"), 3, "one each, in order"),
        "originals of other values": (
            data("good.npz", "--originals", folder / "counts.npy"),
            3,
            "382.617, but",
        ),
        "originals of the run": (("--originals", folder / "few.npy"), 2, "clean ones of --data"),
        "size of the run": (("--resolution", 4), 2, "it is for --data"),
        "size of heldout": (("--heldout", "--resolution", 4), 2, "it is for --data"),
        "level of the run": (("--sigma", 0.2), 2, "are known"),
        "heldout of other data": (data("good.npz", "--heldout"), 2, "run's own data"),
        "no such file": (data("nothing.npz"), 3, "neither a file"),
        "one sample": (("--samples", 1), 2, "gives no spread"),
        "one step": (("--steps", 1), 2, "must be >= 2"),
        "no samples to keep": (("--samples", 0, "--keep-samples"), 2, "none to keep"),
        "no such checkpoint": (("--at", 5), 2, "no checkpoint after 5 images: give one of"),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        *("noisier than any level", "another size", "channels", "range of bytes", "range", "range of one image"),
        "levels missing",
        *("nothing noisy", "maps", "negative levels", "levels twice", "originals of other images"),
        "originals of other values",
        *(
            "originals of the run",
            *("size of the run", "size of heldout"),
            "level of the run",
            "heldout of other data",
            "no such file",
            "one sample",
            "one step",
        ),
        *("no samples to keep", "no such checkpoint"),
    ],
)
def test_what_cannot_be_restored_is_refused_in_a_sentence_before_anything_is_written(
    run: Path, tmp_path: Path, wrong: str
) -> None:
    options, status, words = bad_data(tmp_path)[wrong]
    refused = restore(run, tmp_path / "out", *options)
    assert refused.exit_code == status, refused.output
    assert words in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_run_without_noise_and_a_network_of_no_run_are_told_what_to_do(run: Path, tmp_path: Path) -> None:
    clean = trained(tmp_path, "--max-images", 40)
    refused = restore(clean, tmp_path / "out")
    assert (refused.exit_code, "give --heldout, or --data" in refused.stderr) == (2, True)
    assert ambient("export", run, tmp_path / "exported", "-q").exit_code == 0
    (tmp_path / "exported" / "ambient.json").unlink()
    refused = restore(tmp_path / "exported", tmp_path / "out")
    assert (refused.exit_code, "comes from no run" in refused.stderr) == (2, True)
    write_noisy(tmp_path / "noisy.npz")
    assert restore(tmp_path / "exported", tmp_path / "out", "--data", tmp_path / "noisy.npz", "-q").exit_code == 0


def test_a_network_that_gives_nan_stops_with_its_code(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*arguments: Any, **keywords: Any) -> None:
        raise DivergedError("a sentence")

    monkeypatch.setattr(task, "posterior_of", diverged)
    assert restore(run, tmp_path / "out", "--quiet").exit_code == 4
    assert not (tmp_path / "out" / "result.json").exists()
