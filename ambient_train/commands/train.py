"""The trainer's commands: train, generate, evaluate, sweep. Heavy modules are imported when a command runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ambient_theory.shared.console import command, print_json, talk
from ambient_theory.shared.errors import UsageError
from ambient_train.training.signals import leave_on_signal

sweep_app = typer.Typer(
    help="Grids of trainings: plan, run, status.", no_args_is_help=True, pretty_exceptions_enable=False
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no talk.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def parse_images(text: str | None, name: str) -> int | None:
    """`200000`, `200k` or `1.5M` images. Raises UsageError on anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kM]?)(?:img)?\s*", text)
    if not match:
        raise UsageError(f"{name} {text!r}: give a number of images such as 200000, 200k or 1.5M")
    return round(float(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]])


def parse_time(text: str, name: str) -> float:
    """Seconds in `90s`, `45m`, `3h30m`, `2d` or a plain number of seconds. Raises UsageError on anything else."""
    match = re.fullmatch(r"\s*(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?\s*", text)
    seconds = 0.0
    if match and text.strip():
        seconds = sum(float(v or 0) * unit for v, unit in zip(match.groups(), (86_400, 3_600, 60, 1), strict=True))
    if not seconds > 0:
        raise UsageError(f"{name} {text!r}: give a time such as 90s, 45m, 3h30m or 2d")
    return seconds


def _network_flags(width: int | None, channel_mult: str | None) -> dict[str, Any] | None:
    """`--width` and `--channel-mult` as network settings; None if neither is given."""
    out: dict[str, Any] = {}
    if width is not None:
        if width < 1:
            raise UsageError(f"--width {width} must be >= 1")
        out["model_channels"] = width
    if channel_mult is not None:
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", channel_mult):
            raise UsageError(f"--channel-mult {channel_mult!r}: give whole numbers >= 1 such as 1,2,2")
        out["channel_mult"] = [int(m) for m in channel_mult.split(",")]
    return out or None


@command
@leave_on_signal()
def train(
    data: Annotated[
        str | None,
        typer.Option(help="digits, fashion, photos32, or a path: folder, zip, npz, npy, idx, tarball. Default digits."),
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Noise added to the noisy images, standard deviation in units of [-1, 1].")
    ] = None,
    corruption: Annotated[float | None, typer.Option(help="Share of noisy images, 0 to 1. Default 0.")] = None,
    keep: Annotated[float | None, typer.Option(help="Share of the data set that is used, 0 to 1. Default 1.")] = None,
    n_clean: Annotated[int | None, typer.Option(help="Clean images (instead of --keep and --corruption).")] = None,
    n_noisy: Annotated[int | None, typer.Option(help="Noisy images (instead of --keep and --corruption).")] = None,
    resolution: Annotated[int | None, typer.Option(help="Area-resize to this side in pixels. Default: as is.")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Share held out for scores. Default: the data's own test part, .2 or .1.")
    ] = None,
    max_images: Annotated[int | None, typer.Option(help="Use at most so many training images. Default all.")] = None,
    preset: Annotated[str | None, typer.Option(help="Named settings. Default: by --data, else small.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; flags win over it.")] = None,
    duration: Annotated[
        str | None, typer.Option(help="Images to train on: 200000, 200k, 1.5M. May grow later. Default by preset.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="ddpmpp, ncsnpp, adm (EDM's networks) or SmallUNet. Default by preset.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first level. Default by preset.")] = None,
    channel_mult: Annotated[
        str | None, typer.Option(help="Width of each level in units of --width: 1,2,2. Default by preset.")
    ] = None,
    cond: Annotated[bool | None, typer.Option("--cond/--no-cond", help="Train with class labels.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout probability. Default by preset.")] = None,
    augment: Annotated[
        float | None, typer.Option(help="Probability of each noise-safe augmentation. Default by preset.")
    ] = None,
    xflip: Annotated[bool | None, typer.Option("--xflip/--no-xflip", help="Mirror images at random.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW weight decay. Default 0.")] = None,
    loss_scale: Annotated[float | None, typer.Option(help="Factor on the loss in fp16. Default 1.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step. Default by preset.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(help="Images at once (gradient accumulation). Default: the whole batch.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of Adam. Default by preset.")] = None,
    ema: Annotated[str | None, typer.Option(help="EMA half-life in images: 20k, 0.5M. Default by preset.")] = None,
    weight: Annotated[str | None, typer.Option(help="Loss weight: x0, y (the paper's) or optimal. Default x0.")] = None,
    draw: Annotated[
        str | None, typer.Option(help="How sigma and image are drawn: sigma-first, image-first, paper.")
    ] = None,
    buffer: Annotated[
        float | None, typer.Option(help="A noisy image is used above buffer * its noise. Default 1.05.")
    ] = None,
    compat: Annotated[str | None, typer.Option(help="'paper': loss and draws as in the paper's code.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16. Default by preset.")] = None,
    seed: Annotated[int, typer.Option(help="Keys every random draw.")] = 0,
    device: Device = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    keep_checkpoints: Annotated[int, typer.Option(help="Newest checkpoints to keep, 0 = all.")] = 2,
    max_time: Annotated[
        str | None, typer.Option(help="Save and leave with exit code 75 after this time: 90s, 45m, 3h30m, 2d.")
    ] = None,
    on_nan: Annotated[
        str, typer.Option(help="stop, or rollback: go back to the last checkpoint and pass over the batch.")
    ] = "stop",
    nproc: Annotated[int, typer.Option(help="Processes on this machine, one a GPU (or CPU share).")] = 1,
    max_restarts: Annotated[
        int, typer.Option(help="With --nproc: start the processes again so many times if one dies.")
    ] = 0,
    nodes: Annotated[int, typer.Option(help="Machines that run this command together.")] = 1,
    rendezvous: Annotated[str, typer.Option(help="With --nodes: HOST:PORT on one of them.")] = "",
    shard: Annotated[
        bool,
        typer.Option("--shard", help="Split the weights over the processes (FSDP2), for networks too big for one."),
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard or wandb, beside metrics.jsonl; several times. Default neither."),
    ] = None,
    outdir: Annotated[
        Path | None, typer.Option(help="Run directory. Default runs/<dataset>-s<sigma>-c<share>-seed<k>-<hash>.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, with time and memory.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a diffusion model on a mixture of clean and noisy images, and score it.

    The same command again continues, or says that it is done.
    """
    flags: dict[str, Any] = {
        "data": data,
        "sigma": sigma,
        "corruption": corruption,
        "keep": keep,
        "n_clean": n_clean,
        "n_noisy": n_noisy,
        "resolution": resolution,
        "holdout": holdout,
        "max_images": max_images,
        "preset": preset,
        "arch": arch,
        "network": _network_flags(width, channel_mult),
        "cond": cond,
        "dropout": dropout,
        "augment": augment,
        "xflip": xflip,
        "weight_decay": weight_decay,
        "loss_scale": loss_scale,
        "duration_nimg": parse_images(duration, "--duration"),
        "batch": batch,
        "lr": lr,
        "ema_halflife_nimg": parse_images(ema, "--ema"),
        "weight": weight,
        "draw": draw,
        "buffer": buffer,
        "compat": compat,
        "precision": precision,
        "seed": seed,
    }
    settings: dict[str, Any] = {
        "flags": flags,
        "config_file": config,
        "outdir": outdir,
        "device": device,
        "micro_batch": micro_batch,
        "compiled": compile_,
        "keep_checkpoints": keep_checkpoints,
        "max_time_s": None if max_time is None else parse_time(max_time, "--max-time"),
        "on_nan": on_nan,
        "shard": shard,
        "log": tuple(log or ()),
        "dry_run": dry_run,
        "quiet": quiet,
    }
    result = _start_training(settings, nproc, max_restarts, nodes, rendezvous)
    if result is None:  # a process of a group that is not its leader
        return
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()


def _start_training(settings: dict[str, Any], nproc: int, max_restarts: int, nodes: int, rendezvous: str) -> Any:
    """Here, or in a group of processes started from here; under torchrun or srun this is one of a group."""
    from ambient_train.tasks.train import train_from_settings
    from ambient_train.training.world import place_in_group

    place = place_in_group()
    if place is not None and nproc not in (1, place[1]):
        raise UsageError(f"--nproc {nproc} inside a group of {place[1]} processes: leave it out under torchrun or srun")
    if place is not None or (nproc == 1 and nodes == 1) or settings["dry_run"]:
        return train_from_settings(**settings)
    from ambient_train.training.launch import launch

    return launch(
        train_from_settings,
        settings,
        nproc=nproc,
        device=settings["device"],
        max_restarts=max_restarts,
        nodes=nodes,
        rendezvous=rendezvous,
    )


@command
@leave_on_signal()
def generate(
    network: Annotated[Path, typer.Argument(help="Run directory, exported network or EDM .pkl.")],
    outdir: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("generated"),
    seeds: Annotated[str, typer.Option(help="One image a seed: 0-63, or 1,5,9-12.")] = "0-63",
    format_: Annotated[str, typer.Option("--format", help="png (one an image), npz, or grid.")] = "png",
    subdirs: Annotated[bool, typer.Option("--subdirs", help="A sub-folder for every 1000 seeds.")] = False,
    class_: Annotated[int | None, typer.Option("--class", help="Class label. Default: seed modulo classes.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampler steps. Default 18.")] = None,
    sigma_min: Annotated[float | None, typer.Option(help="Lowest noise level. Default 0.002.")] = None,
    sigma_max: Annotated[float | None, typer.Option(help="Highest noise level. Default 80.")] = None,
    rho: Annotated[float | None, typer.Option(help="Schedule exponent. Default 7.")] = None,
    churn: Annotated[float | None, typer.Option(help="Stochasticity, 0 = none. Default 0.")] = None,
    s_min: Annotated[float | None, typer.Option(help="Lowest level with churn. Default 0.")] = None,
    s_max: Annotated[float | None, typer.Option(help="Highest level with churn. Default infinity.")] = None,
    s_noise: Annotated[float | None, typer.Option(help="Noise inflation of churn. Default 1.")] = None,
    solver: Annotated[str | None, typer.Option(help="heun or euler. Default heun.")] = None,
    discretization: Annotated[
        str | None, typer.Option(help="Noise levels of EDM's ablation: edm, vp, ve or iddpm. Default edm.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="sigma(t) of the ablation: linear, vp or ve. Default linear.")
    ] = None,
    scaling: Annotated[str | None, typer.Option(help="s(t) of the ablation: none or vp. Default none.")] = None,
    stop_sigma: Annotated[
        float | None, typer.Option(help="Return the denoised image below this level; 0 = never. Default 0.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 256,
    at: Annotated[str | None, typer.Option(help="Checkpoint after so many images, e.g. 100k. Default newest.")] = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate images. Image k is a function of seed k alone."""
    from ambient_train.tasks.generate import generate_images

    sampler = {
        "steps": steps,
        "sigma_min": sigma_min,
        "sigma_max": sigma_max,
        "rho": rho,
        "churn": churn,
        "s_min": s_min,
        "s_max": s_max,
        "s_noise": s_noise,
        "solver": solver,
        "discretization": discretization,
        "schedule": schedule,
        "scaling": scaling,
        "stop_sigma": stop_sigma,
    }
    result = generate_images(
        network,
        outdir,
        seeds=seeds,
        form=format_,
        subdirs=subdirs,
        label=class_,
        sampler={k: v for k, v in sampler.items() if v is not None},
        batch=batch,
        nimg=parse_images(at, "--at"),
        device=device,
        quiet=quiet,
    )
    if as_json:
        print_json(result)
    else:
        print(f"{result['images']} images in {result['path']}")


@command
@leave_on_signal()
def evaluate(
    target: Annotated[
        Path, typer.Argument(help="Run directory, exported network or .pkl; or images: folder, zip, npz.")
    ],
    data: Annotated[
        str | None, typer.Option(help="Data set to compare with (a name or a path). Default: the run's own.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Area-resize --data to this side. Default: the run's.")] = None,
    n: Annotated[
        int | None, typer.Option("--n", help="Images to generate. Default: the run's preset, else 5000.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first image.")] = 0,
    repeats: Annotated[
        int, typer.Option(help="Independent sets of images; gives mean, spread and standard error.")
    ] = 1,
    extractor: Annotated[
        list[str] | None,
        typer.Option(help="pixels, smallcnn, effnet-lite0, inception[:FILE], torchscript:FILE. Default: what fits."),
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="fd, kid, is; several times. Default fd and kid.")] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="heldout-clean, train-clean, images, or an .npz of statistics; several times. Default the first two."
        ),
    ] = None,
    save_stats: Annotated[Path | None, typer.Option(help="Write the reference statistics (EDM .npz) here.")] = None,
    memorisation: Annotated[
        bool, typer.Option("--memorisation", help="Also compare distances to training and to held-out images.")
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Sampler steps. Default: the run's preset, else 18.")] = None,
    stop_sigma: Annotated[float | None, typer.Option(help="Return the denoised image below this level.")] = None,
    at: Annotated[str | None, typer.Option(help="Checkpoint after so many images. Default newest.")] = None,
    device: Device = "auto",
    outdir: Annotated[Path | None, typer.Option(help="Also write records.jsonl here.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model, or a set of images, by Frechet and kernel distance with intervals and floors."""
    from ambient_train.tasks.evaluate import evaluate_target

    result = evaluate_target(
        target,
        data=data,
        resolution=resolution,
        n=n,
        seed=seed,
        repeats=repeats,
        extractors=tuple(extractor or ()),
        metrics=tuple(metric or ("fd", "kid")),
        references=tuple(reference or ()),
        save_stats=save_stats,
        memorisation=memorisation,
        sampler={k: v for k, v in {"steps": steps, "stop_sigma": stop_sigma}.items() if v is not None},
        nimg=parse_images(at, "--at"),
        device=device,
        outdir=outdir,
        quiet=quiet,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()


GridFile = Annotated[Path, typer.Argument(help="Grid file (TOML).")]
Runs = Annotated[Path, typer.Option(help="Folder of run directories.")]


@sweep_app.command("run")
@command
@leave_on_signal()
def sweep_run(
    grid: GridFile,
    runs: Runs = Path("runs"),
    workers: Annotated[int, typer.Option(help="Trainings at a time, one process each.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads of each training.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    outdir: Annotated[
        Path | None, typer.Option(help="Where records and table go. Default: beside the runs, named like the grid.")
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit the workers as SLURM jobs (extra slurm) and print their numbers.")
    ] = False,
    slurm_partition: Annotated[
        str | None, typer.Option(help="With --slurm: partition of the jobs. Default: the cluster's.")
    ] = None,
    slurm_gpus: Annotated[
        int | None, typer.Option(help="With --slurm: GPUs of each job, 0 = none; a training uses one. Default 1.")
    ] = None,
    slurm_time: Annotated[
        int | None,
        typer.Option(help="With --slurm: time limit of a job in minutes, after which it is queued again. Default 240."),
    ] = None,
    slurm_jobs: Annotated[
        int | None, typer.Option(help="With --slurm: jobs, one training at a time each. Default: --workers.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="With --slurm: wait for the jobs, then print the table.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the cells of a grid that are not done; write records (JSONL) and a table (CSV); print the table.

    With --slurm, jobs of a cluster do it; the folder of runs must be reachable from all of its machines.
    """
    from ambient_train.sweep.report import SweepResult, run_grid

    asked = {"partition": slurm_partition, "gpus": slurm_gpus, "minutes": slurm_time, "jobs": slurm_jobs}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    result: Any
    if slurm:
        from ambient_train.sweep.slurm import SlurmOptions, submit_grid, wait_for_grid

        options = SlurmOptions(**{"jobs": workers, **given})
        result = submit_grid(grid, runs, options, threads=threads, device=device, outdir=outdir)
        if wait:
            talk(f"submitted {', '.join(job.job_id for job in result.jobs)}; logs: {result.logs}", quiet=quiet)
            result = wait_for_grid(result, runs, outdir=outdir, quiet=quiet)
    elif given or wait:
        raise UsageError("--wait and the options --slurm-... are for jobs: add --slurm, or leave them out")
    else:
        result = run_grid(grid, runs, workers=workers, threads=threads, device=device, outdir=outdir, quiet=quiet)
    if as_json:
        print_json(result.to_dict())
    else:
        result.show()
    if isinstance(result, SweepResult):
        result.check()


@sweep_app.command("plan")
@command
def sweep_plan(grid: GridFile, as_json: Json = False) -> None:
    """Print the cells of a grid, images to train and to generate, parameters and estimated time.

    Times are measured here on small micro-batches; where the data is not here, they are those of published runs.
    """
    from ambient_train.sweep.plan import plan_grid

    plan = plan_grid(grid)
    if as_json:
        print_json(plan.to_dict())
    else:
        plan.show()


@sweep_app.command("status")
@command
def sweep_status(grid: GridFile, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Say which cells of a grid are done, started or missing."""
    from ambient_train.sweep.report import status_grid

    status = status_grid(grid, runs)
    if as_json:
        print_json(status.to_dict())
    else:
        status.show()
