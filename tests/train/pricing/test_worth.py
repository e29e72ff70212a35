"""`ambient worth` end to end on tiny trainings: an answer, a stop that loses nothing, and refusals before training."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from invoke import ambient
from number_files import hdf5

from ambient_theory.compare.advice.adviser import RecordAdviser
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.reading import read_records
from ambient_train.data.load import load_images
from ambient_train.data.noise_models import added_noise
from ambient_train.data.resize import area_resize
from ambient_train.pricing import campaign, run, stages
from ambient_train.pricing.images import small_images, write_images
from ambient_train.pricing.noise import noise_after_resizing

pytestmark = pytest.mark.timeout(1200)  # a dozen small trainings, on whatever else the machine does


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of 64 images by a network of 4 channels, judged at 32 images."""
    table_for = run.table_for

    def small_network(*arguments: Any) -> dict[str, Any]:
        table = table_for(*arguments)
        network = {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8}
        evaluation = {**table["evaluation"], "sampler": {"steps": 2}}
        return {**table, "network": network, "batch": 16, "lr_ramp_nimg": 32, "evaluation": evaluation}

    monkeypatch.setattr(run, "table_for", small_network)
    monkeypatch.setattr(run, "_DENOISE", (32, 32))
    monkeypatch.setattr(run, "_READ_AGAIN_S", 0.0)  # such trainings take hardly longer than reading them again
    monkeypatch.setattr(run, "_rates", lambda *_: stages.Rates(1e6, 1e6))
    monkeypatch.setattr(stages, "SHORTEST", 64)
    monkeypatch.setattr(stages, "LONGEST", 64)
    for module in (campaign, run):
        monkeypatch.setattr(module, "first_cells", lambda sigmas: 5 + sigmas)


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds; one test draws them."""
    monkeypatch.setattr(RecordAdviser, "page", lambda self, records, outdir: outdir / "index.html")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """160 grey images of 16 pixels: blobs in eight places."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    centres = rng.choice(4, size=(160, 2)) * 4 + 1.5
    blobs = np.exp(-((y - centres[:, :1, None]) ** 2 + (x - centres[:, 1:, None]) ** 2) / 8)
    path = tmp_path / "blobs.npz"
    np.savez(path, images=np.rint(blobs * 255).astype(np.uint8)[:, None])
    return path


def ask(folder: Path, data: Path | str, *more: object, sigma: float = 0.4) -> Any:
    where = ("--runs", folder / "runs", "--outdir", folder / "answer", "--device", "cpu")
    return ambient("worth", data, "--sigma", sigma, *where, *more)


def sizes(file: Path) -> set[tuple[int, int]]:
    """(clean, noisy) images of the trainings in a file of records."""
    return {(r.n_clean, r.n_noisy) for r in read_records(file)}


class Clock:
    """Stops the campaign after so many trainings, whatever the machine."""

    def __init__(self, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cells = cells
        following = campaign.Campaign.next

        def next_cell(of: campaign.Campaign, adviser: Any) -> Any:
            return following(of, adviser) if len(of.asked) < self.cells else None

        monkeypatch.setattr(campaign.Campaign, "next", next_cell)


def test_it_answers_with_sentence_bands_page_and_purchase(
    tiny: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(7, monkeypatch)
    found = ask(tmp_path, pictures, "--resolution", 8, "--price-clean", 10, "--price-noisy", 1, "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["dataset"] == "blobs"
    assert answer["trainings"] == 7
    (level,) = answer["noise_levels"]
    assert level["sigma_at_this_size"] == pytest.approx(0.2)  # two pixels a side are averaged
    assert [r["rule"] for r in level["rules"]][:2] == ["at the held-out best", "at fixed compute"]
    assert "blobs, σ 0.4 (σ 0.2 at 8 pixels)" in level["sentences"][0]
    assert len(level["rules"][0]["rows"]) == 16
    bought = level["purchase"]
    most = max(10 * n + m for n, m in sizes(tmp_path / "answer" / "records.jsonl") if m)
    assert bought["budget"] == most
    assert bought["sentence"].startswith(f"for {most:,.6g}, what the largest mixture measured would cost: At σ 0.4 (σ")
    assert (tmp_path / "answer" / "index.html").is_file()
    assert "so far:" in found.stderr
    # what was trained is a grid that the sweep finds done
    status = ambient("sweep", "status", tmp_path / "answer" / "grid.toml", "--runs", tmp_path / "runs", "--json")
    assert json.loads(status.stdout)["counts"] == {"done": 7}
    monkeypatch.setattr(RecordAdviser, "page", lambda self, records, outdir: outdir / "index.html")
    again = ask(tmp_path, pictures, "--resolution", 8, "--json")
    assert json.loads(again.stdout)["noise_levels"][0]["rules"] == level["rules"]
    other = ask(tmp_path, pictures, "--resolution", 8, sigma=0.3)
    assert (other.exit_code, "another question" in other.stderr) == (2, True)
    monkeypatch.setattr(run.TrainConfig, "draw", "sigma-first")  # as a version with another default has it
    other = ask(tmp_path, pictures, "--resolution", 8)
    assert (other.exit_code, "(other draw)" in other.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR2, 75)])
def test_a_stop_loses_nothing_and_the_same_command_goes_on(
    tiny: None,
    no_page: None,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    Clock(6, monkeypatch)
    whole = ask(tmp_path / "whole", pictures, "--json")
    finish = campaign.Campaign.finish

    def stop_after_three(self: campaign.Campaign, *arguments: Any) -> None:
        finish(self, *arguments)
        if len(self.done) == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(campaign.Campaign, "finish", stop_after_three)
    stopped = ask(tmp_path / "part", pictures)
    assert stopped.exit_code == code, stopped.output
    assert "the same command continues" in stopped.stderr
    monkeypatch.setattr(campaign.Campaign, "finish", finish)
    results = sorted((tmp_path / "part" / "runs").glob("*/result.json"))
    assert len(results) == 3
    stamps = {p: p.stat().st_mtime_ns for p in results}
    resumed = ask(tmp_path / "part", pictures, "--json")
    assert resumed.exit_code == 0, resumed.output
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())
    strip = ("page", "records", "spent_s")
    first, second = ({k: v for k, v in json.loads(x.stdout).items() if k not in strip} for x in (whole, resumed))
    assert first == second


def test_time_that_is_added_begins_longer_trainings(
    tiny: None, no_page: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "LONGEST", 256)
    monkeypatch.setattr(run, "_rates", lambda *_: stages.Rates(4, 1e9))  # 16 s for 64 images
    clock = Clock(6, monkeypatch)
    short = ask(tmp_path, pictures, "--resolution", 8, "--time", "300s", "--json")
    assert short.exit_code == 0, short.output
    assert json.loads(short.stdout)["duration_nimg"] == 64
    clock.cells = 12
    little_more = json.loads(ask(tmp_path, pictures, "--resolution", 8, "--time", "700s", "--dry-run", "--json").stdout)
    assert [s["duration_nimg"] for s in little_more["stages"]] == [64]  # twice as long is not worth beginning anew
    plan = json.loads(ask(tmp_path, pictures, "--resolution", 8, "--time", "2000s", "--dry-run", "--json").stdout)
    assert [s["duration_nimg"] for s in plan["stages"]] == [64, 256]
    assert plan["trainings"] == pytest.approx((2000 - stages.PAGE_S) / (64 + stages.CELL_S), rel=0.1)  # none of 64
    long = ask(tmp_path, pictures, "--resolution", 8, "--time", "2000s", "--json")
    assert long.exit_code == 0, long.output
    assert "time for longer trainings now: of 256 images each" in long.stderr
    assert json.loads(long.stdout)["duration_nimg"] == 256
    asked = json.loads((tmp_path / "answer" / "worth.json").read_text())["asked"]
    assert [row[0] for row in asked] == [0] * 6 + [1] * 6


@pytest.mark.slow
def test_two_noise_levels_share_the_clean_only_curve(
    tiny: None, no_page: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(8, monkeypatch)
    found = ask(tmp_path, pictures, "--sigma", 0.8, "--json")
    assert found.exit_code == 0, found.output
    asked = json.loads((tmp_path / "answer" / "worth.json").read_text())["asked"]
    clean, mixed = [row for row in asked if not row[2]], [row for row in asked if row[2]]
    assert len({row[1] for row in clean}) >= 4
    assert {row[3] for row in mixed} == {0.4, 0.8}
    assert len({tuple(row) for row in asked}) == 8
    assert [level["sigma"] for level in json.loads(found.stdout)["noise_levels"]] == [0.4, 0.8]


def test_without_time_for_a_first_answer_it_stops_and_says_so(
    tiny: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(1, monkeypatch)
    found = ask(tmp_path, pictures)
    assert (found.exit_code, "the same command with a longer --time goes on" in found.stderr) == (75, True)


def test_a_dry_run_says_what_would_be_trained_and_trains_nothing(tiny: None, pictures: Path, tmp_path: Path) -> None:
    found = ask(tmp_path, pictures, "--dry-run", "--time", "10m", "--json")
    assert found.exit_code == 0, found.output
    plan = json.loads(found.stdout)
    assert plan["resolution"] == 16
    assert plan["first_cells"][-1].endswith("n-0.4")
    assert plan["trainings"] > 10
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "answer").exists()
    assert "seconds" not in ask(tmp_path, pictures, "--dry-run").stderr


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (("--sigma", "-1"), "no noise to price", 2),
        (("--sigma", "0"), "no noise to price", 2),
        (("--resolution", "8", "--resolution", "16"), "one --resolution a command", 2),
        (("--resolution", "12"), "--resolution 12 is not 8 or 16", 2),
        (("--price-clean", "3"), "belong together", 2),
        (("--budget", "100"), "give --price-clean and --price-noisy too", 2),
        (("--time", "20s"), "give at least --time", 2),
        (("--time", "soon"), "give a time such as", 2),
    ],
)
def test_questions_that_cannot_be_answered_are_refused_before_anything_is_trained(
    tiny: None, pictures: Path, tmp_path: Path, options: tuple[str, ...], words: str, code: int
) -> None:
    found = ask(tmp_path, pictures, *options)
    assert (found.exit_code, words in found.stderr) == (code, True), found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_without_sigma_there_is_no_question(pictures: Path) -> None:
    found = ambient("worth", pictures)
    assert (found.exit_code, "--sigma is missing" in found.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((300, 1, 8, 8), np.uint8), "sigma": np.full(300, 0.2, np.float32)}, "is clean"),
        ({"images": np.zeros((20, 1, 8, 8), np.uint8)}, "20 clean images are too few"),
        ({"images": np.zeros((300, 1, 8, 10), np.uint8)}, "not square"),
        ({"images": np.zeros((300, 1, 4, 4), np.uint8)}, "smaller than 8"),
    ],
)
def test_data_that_cannot_answer_are_refused_in_one_sentence(
    tiny: None, tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, **arrays)
    found = ask(tmp_path, path)
    assert (found.exit_code, words in found.stderr) == (3, True), found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    if "is clean" in words:
        assert "a guess from printed tables of other images" in found.stderr


def test_noisy_images_of_the_data_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sigma = np.where(np.arange(400) % 4 == 0, 0.3, 0.0).astype(np.float32)
    np.savez(tmp_path / "mixed.npz", images=rng.integers(0, 255, (400, 1, 8, 8), np.uint8), sigma=sigma)
    small = small_images(str(tmp_path / "mixed.npz"), None)
    assert small.passed_over == 100
    assert small.n_train + small.n_heldout == 300


def test_the_images_that_are_trained_on_are_read_again_whatever_their_values_reach(tmp_path: Path) -> None:
    """A sky whose few bright stars lie far beyond the map of its values, and floats that averaging brings to [0, 1]."""
    rng = np.random.default_rng(0)
    sky = rng.normal(100, 5, (200, 16, 16))
    sky[::4, 3, 5] += rng.exponential(20_000, 50)
    bright = np.clip(rng.normal(0.5, 0.3, (200, 32, 32)), -1, 1).astype(np.float32)
    bytes_of = rng.integers(0, 255, (200, 16, 16), np.uint8)
    hdf5(tmp_path / "sky.h5", sky.astype(np.float32))
    np.savez(tmp_path / "bright.npz", images=bright)
    np.savez(tmp_path / "bytes.npz", images=bytes_of)
    for k, name in enumerate(("sky.h5", "bright.npz", "bytes.npz")):
        small = small_images(str(tmp_path / name), 8)
        if name == "bright.npz":
            assert small.images.min() >= 0  # the control: as an .npz of floats it would be refused
        path = tmp_path / f"{k}.npz"
        write_images(small, path)
        read = [load_images(str(path), split=part) for part in ("train", "heldout")]
        assert np.array_equal(read[0].images, small.images[~small.heldout])
        assert np.array_equal(read[1].images, small.images[small.heldout])
        assert read[0].values == small.values
        assert (small.values is None) == (name == "bytes.npz")
        before = path.stat().st_mtime_ns
        write_images(small, path)
        assert path.stat().st_mtime_ns == before
    np.savez(tmp_path / "0.npz", images=small_images(str(tmp_path / "sky.h5"), 8).images, heldout=small.heldout)
    write_images(small_images(str(tmp_path / "sky.h5"), 8), tmp_path / "0.npz")  # as versions before wrote it
    assert load_images(str(tmp_path / "0.npz"), split="train").values is not None


def test_correlated_noise_is_priced_as_it_is_at_the_small_size(
    tiny: None, no_page: None, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise added at 16 pixels and averaged to 8 has the deviation and the spectrum that the trainings are given."""
    Clock(7, monkeypatch)
    found = ask(tmp_path, pictures, "--noise", "correlated:0.6", "--resolution", 8, "--json")
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["noise"] == "correlated:0.6"
    assert "the noise that is priced is not white: correlated:0.6" in found.stderr
    (level,) = answer["noise_levels"]
    assert "blobs, correlated noise of σ 0.4 (σ" in level["sentences"][0]
    assert "ends at level" in level["sentences"][0]
    spectrum = np.load(next((tmp_path / "answer" / "images").glob("correlated-*.npy")))
    model = added_noise("correlated:0.6", (1, 16, 16))
    ids = torch.arange(4000)
    noise = model.noise(0, ids, (1, 16, 16))
    drawn = model.corrupt(torch.zeros_like(noise), torch.full((4000,), 0.4).double(), noise)
    small = area_resize(drawn.numpy(), 8)
    assert level["sigma_at_this_size"] == pytest.approx(float(small.std()), rel=0.01)
    seen = np.mean(np.abs(np.fft.rfft2(small, norm="ortho")) ** 2, axis=(0, 1))
    assert seen / small.var() == pytest.approx(spectrum[0], rel=6 * np.sqrt(2 / 4000))  # of exponential, real at worst
    assert level["sigma_at_this_size"] > 1.3 * 0.2  # white noise would fall by half
    records = list(read_records(tmp_path / "answer" / "records.jsonl"))
    kinds = {r.method["noise"] for r in records if r.n_noisy}
    assert {k.split()[0] for k in kinds} == {"correlated"}
    assert all("noise_eigenvalues" in r.extra for r in records if r.n_noisy and r.metric == "denoise")
    again = ask(tmp_path, pictures, "--noise", "correlated:0.6", "--resolution", 8, "--json")
    assert json.loads(again.stdout)["noise_levels"] == answer["noise_levels"]
    white = ask(tmp_path, pictures, "--resolution", 8)
    assert (white.exit_code, "another question (other sigmas, noise)" in white.stderr) == (2, True), white.stderr


def test_the_noise_of_the_noisy_images_is_priced_unless_another_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sigma = np.where(np.arange(400) % 4 == 0, 0.3, 0.0).astype(np.float32)
    images = rng.integers(0, 255, (400, 1, 8, 8), np.uint8)
    spectrum = np.exp(-np.arange(8)[:, None] % 5 - np.arange(5.0))
    spectrum = (spectrum + np.roll(spectrum[::-1], 1, 0)) / 2
    np.savez(tmp_path / "own.npz", images=images, sigma=sigma, spectrum=spectrum)
    own = small_images(str(tmp_path / "own.npz"), None).noise
    assert (own.kind, own.asked) == ("correlated", "correlated, as the images came")
    assert own.array is not None
    assert np.ptp(own.array / spectrum) < 1e-5 * own.array.max() / spectrum.max()
    assert small_images(str(tmp_path / "own.npz"), None, "white").noise.array is None
    one = rng.uniform(0.5, 2, (8, 8))
    maps = np.where(sigma[:, None, None] > 0, one, 0)
    np.savez(tmp_path / "map.npz", images=images, sigma=maps)
    mapped = small_images(str(tmp_path / "map.npz"), None).noise
    assert mapped.kind == "variance-map"
    assert mapped.array == pytest.approx((one / np.sqrt(np.mean(one**2)))[None], rel=1e-5)
    maps[4] = 3 - one
    np.savez(tmp_path / "maps.npz", images=images, sigma=maps)
    with pytest.raises(DataError, match="maps of their noise that differ; say which is priced"):
        small_images(str(tmp_path / "maps.npz"), None)
    assert small_images(str(tmp_path / "maps.npz"), None, "white").noise.array is None


@pytest.mark.parametrize(
    ("noise", "words", "code"),
    [
        ("pink", "pink", 2),
        ("correlated", "needs parameters", 2),
        ("correlated:9", "below a quarter of the image", 2),
        ("poisson-gaussian:0.1", "name DATA with `:gain=G`", 2),
        ("variance-map:none.npy", "none.npy", 3),
    ],
)
def test_noise_that_cannot_be_priced_is_refused_before_anything_is_trained(
    tiny: None, pictures: Path, tmp_path: Path, noise: str, words: str, code: int
) -> None:
    found = ask(tmp_path, pictures, "--noise", noise)
    assert (found.exit_code, words in found.stderr) == (code, True), found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "answer").exists()


def test_noise_that_is_not_white_needs_sides_that_divide(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", images=np.zeros((300, 1, 20, 20), np.uint8))
    with pytest.raises(DataError, match="choose a resolution that divides 20"):
        small_images(str(tmp_path / "odd.npz"), 8, "correlated:0.6")
    assert small_images(str(tmp_path / "odd.npz"), 8).noise.correlation > 0


def test_an_open_question_about_the_data_is_asked_first(tmp_path: Path) -> None:
    for part in ("clean", "noisy"):
        (tmp_path / "both" / part).mkdir(parents=True)
        for k in range(60):
            PIL.Image.fromarray(np.full((8, 8), 2 * k, np.uint8)).save(tmp_path / "both" / part / f"{part}{k}.png")
    with pytest.raises(DataError, match="are kinds of noise, or versions of one scene, not classes"):
        small_images(str(tmp_path / "both"), None)


@pytest.mark.parametrize(("side", "resolution"), [(8, 8), (16, 8), (64, 8), (28, 8), (50, 16)])
def test_noise_after_resizing_is_that_of_noise_resized(side: int, resolution: int) -> None:
    """4,000 resized noise images: their deviation within five standard errors; 1/r where it applies."""
    scale, correlation = noise_after_resizing(side, resolution)
    noise = np.random.default_rng(0).standard_normal((4000, side, side)).astype(np.float32)
    small = area_resize(noise, resolution)
    n = small.size
    assert np.sqrt(np.mean(small**2)) == pytest.approx(scale, rel=5 / np.sqrt(n))
    beside = np.mean(small[:, :, 1:] * small[:, :, :-1]) / np.mean(small**2)
    assert beside <= correlation + 5 / np.sqrt(n)
    if side % resolution == 0:
        assert (scale, correlation) == (pytest.approx(resolution / side), 0.0)
    else:
        assert correlation > 0.05
        assert abs(np.sqrt(np.mean(small**2)) / (resolution / side) - 1) > 10 / np.sqrt(n)  # 1/r would be noticed


def test_stages_fit_the_time_and_the_data() -> None:
    fast, slow = stages.Rates(2000, 6000), stages.Rates(200, 600)
    common = {"workers": 2, "sigmas": 1, "n_train": 1277, "denoise": 256}
    short = stages.stages_for(180, fast, **common)
    assert len(short) == 1
    assert short[0].duration_nimg >= 2**13
    hour = stages.stages_for(3600, fast, **common)
    assert len(hour) == 2
    assert hour[0].duration_nimg < hour[1].duration_nimg
    first = stages.first_cells(1) / 2
    assert first * hour[0].cell_s(fast, 256) <= stages.FIRST_ANSWER_S  # a rough answer within five minutes
    total = first * (hour[0].cell_s(fast, 256) + stages.MARGIN * hour[1].cell_s(fast, 256))
    assert total <= 3600
    with pytest.raises(ValueError, match="give at least --time"):
        stages.stages_for(100, slow, **common)
    busy = stages.Rates(200, 600, slowdown=10.0)  # a fast machine with other work on it
    assert stages.stages_for(100, busy, **common)[0].duration_nimg == stages.SHORTEST
    for stage in (*short, *hour):
        cells = stage.candidates(0.4, 1277)
        assert all(m.n_clean + m.n_noisy <= 1277 for m in cells)
        assert stage.score_at[-1] == stage.duration_nimg


def test_an_adviser_is_what_the_shared_part_says() -> None:
    from ambient_theory.shared.advice import Adviser

    adviser: Adviser = RecordAdviser()
    assert "guess" in adviser.guess(0.2)
    assert adviser.rough((), 0.2) == "nothing is known yet"


def test_no_file_of_anybody_else_is_replaced(tiny: None, pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "images" / "photos.npz"
    data.parent.mkdir(parents=True)
    data.write_bytes(pictures.read_bytes())
    found = ambient("worth", data, "--sigma", 0.4, "--runs", tmp_path / "runs", "--outdir", tmp_path / "data")
    assert (found.exit_code, "holds images and no campaign of ambient" in found.stderr) == (2, True), found.stderr
    assert data.read_bytes() == pictures.read_bytes()
    assert [p.name for p in (tmp_path / "data").rglob("*")] == ["images", "photos.npz"]
    assert not (tmp_path / "runs").exists()
