"""`ambient data`: prepare archives for training, and look at what a source holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ambient_theory.shared.console import command, print_json, talk
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.progress import stage_listener
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.data.estimation.options import NoiseOptions
from ambient_train.data.formats.columns import FILE_COLUMNS, LABEL_COLUMNS, SIGMA_COLUMNS, TABLE_STEMS, TABLE_SUFFIXES
from ambient_train.data.prepare.options import CorruptOptions, DecodeOptions, PrepareOptions
from ambient_train.data.readers import source_help
from ambient_train.settings.files import ArchiveFiles, NoiseFiles, PictureFiles

app = typer.Typer(
    name="data",
    help="Prepare and check sets of images.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _list(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


SOURCE_HELP = f"{source_help()}."
CHECK_HELP = (
    "Sizes, modes, labels, noise levels, duplicates, mean and std, and what is wrong with which file.\n\n"
    "The noise level and the label of each image of a folder or .zip stand in a table with a header beside the images, "
    f"named {_list(TABLE_STEMS)} and ending in {_list(TABLE_SUFFIXES)} (any case of letters). Its columns: "
    f"{_list(FILE_COLUMNS[:3])}, the name of an image, or of a folder for all images in it; {_list(SIGMA_COLUMNS)}, "
    "the standard deviation of its noise (or the variance, where that is its name) in units of [-1, 1], for files of "
    f"numbers in theirs, 0 = clean; {_list(LABEL_COLUMNS)}, its class. "
    "Or sigma.npy holds one level an image, in the sorted order of their names. A table of another name is read if it "
    "has a level for every image. An .npz holds the arrays images, labels and sigma. What is not read is named in a "
    "note, and so is a level that the pixels contradict.\n\n"
    "Exit code 3 if training could not read the source as it is."
)


@app.command(epilog="Example: ambient data prepare photos/ photos32.zip --resolution 32")
@command
@leave_on_signal()
@with_options(flags={"colour": ("--colour", "--color")})
def prepare(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    dest: Annotated[Path, typer.Argument(help="Archive to write: .zip (uncompressed PNGs, EDM's layout) or .npz.")],
    options: PrepareOptions,
    decoding: DecodeOptions,
    files: ArchiveFiles,
    output: Output,
) -> None:
    """Decode, crop, resize and write an archive; the same command continues an interrupted one.

    The bytes of DEST depend on the source and the options alone. Shrinking averages areas exactly.
    """
    from ambient_train.data.prepare.prepare import PrepareConfig, partial_path
    from ambient_train.data.prepare.prepare import prepare as run

    config = PrepareConfig(source=source, dest=dest, **vars(options))
    try:
        with stage_listener(output.quiet) as progress:
            result = run(config, workers=decoding.workers, overwrite=files.overwrite, progress=progress)
    except KeyboardInterrupt:
        if partial_path(dest).exists():
            talk(f"what is done is kept in {partial_path(dest)}; the same command continues", quiet=output.quiet)
        raise
    for note in result.notes:
        talk(f"note: {note}", quiet=output.quiet)
    if result.resumed_from:
        talk(f"continued after {result.resumed_from:,} images that were there already", quiet=output.quiet)
    for what, count in result.converted.items():
        talk(f"{count:,} converted: {what}", quiet=output.quiet)
    for name, reason in result.skipped[:10]:
        talk(f"left out {name}: {reason}", quiet=output.quiet)
    if len(result.skipped) > 10:
        talk(f"... and {len(result.skipped) - 10:,} more", quiet=output.quiet)
    if output.json:
        print_json(result.to_dict())
        return
    channels, height, width = result.shape
    extras = [f"{result.noisy:,} noisy"] * bool(result.noisy) + ["labelled" if result.labelled else "no labels"]
    word = "is there already" if result.status == "done" else "written"
    print(f"{result.dest} {word}: {result.count:,} images {channels} x {height} x {width}, {', '.join(extras)}")
    print(f"sha256 {result.sha256}")


@app.command(epilog="Example: ambient data corrupt digits noisy.npz --sigma 0.2 --share 0.9")
@command
@leave_on_signal()
@with_options
def corrupt(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    dest: Annotated[Path, typer.Argument(help="File to write: .npz with images, labels, sigma and heldout.")],
    options: CorruptOptions,
    files: ArchiveFiles,
    output: Output,
) -> None:
    """Write down the noise that training would add: float32 images, never clipped, never noised again.

    Training on DEST is training on SOURCE with the same --seed, --sigma and --corruption.
    """
    from ambient_train.data.prepare.corrupt import write_corrupted

    with stage_listener(output.quiet) as progress:
        result = write_corrupted(source, dest, options, overwrite=files.overwrite, progress=progress)
    for note in result.notes:
        talk(f"note: {note}", quiet=output.quiet)
    if output.json:
        print_json(result.to_dict())
        return
    print(
        f"{result.dest} written: {result.clean:,} clean and {result.noisy:,} noisy images (sigma {result.sigma:g}), "
        f"{result.heldout:,} held out"
    )


@app.command(help=CHECK_HELP, epilog="Example: ambient data check photos/")
@command
@leave_on_signal()
@with_options
def check(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    decoding: DecodeOptions,
    output: Output,
) -> None:
    from ambient_theory.shared.errors import DataError
    from ambient_train.data.prepare.check import check as run

    with stage_listener(output.quiet) as progress:
        report = run(source, workers=decoding.workers, progress=progress)
    if output.json:
        print_json(report.to_dict())
    elif report.count:
        _show(report)
    if not report.usable:
        first = report.problems[0]
        if report.count == 0:
            raise DataError(f"{first['file']}: {first['problem']}")
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise DataError(f"{source} cannot be used as it is: {first['file']}: {first['problem']}{more}")


@app.command(epilog="Example: ambient data noise scans/ --table scans/dataset.csv")
@command
@leave_on_signal()
@with_options
def noise(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    options: NoiseOptions,
    files: NoiseFiles,
    output: Output,
) -> None:
    """How much noise is in the images, and of which kind: level with interval, spectrum, gain and read noise.

    White Gaussian noise in images that are smooth somewhere is measured; texture can only raise the level. Levels are
    in units of [-1, 1], or in those of files of numbers; intervals are meant to hold in 90 %.
    """
    from ambient_train.data.estimation.report import noise_of

    with stage_listener(output.quiet) as progress:
        report = noise_of(
            source,
            options,
            table=files.table,
            spectrum=files.spectrum,
            overwrite=files.overwrite,
            progress=progress,
        )
    if output.json:
        print_json(report.to_dict())
        return
    _show_noise(report)
    if files.spectrum is not None:
        print(f"{files.spectrum} written: the power spectrum of {len(report.names):,} images")
    if report.table is not None:
        print(f"{report.table} written: the levels of {len(report.names):,} images, which train reads")


@app.command(epilog="Example: ambient data show scans/ --out scans.png")
@command
@leave_on_signal()
@with_options
def show(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    files: PictureFiles,
    output: Output,
) -> None:
    """One picture of a set: clean and noisy images, histograms of values and levels, what was read and what not."""
    from ambient_train.data.picture import show_source

    shown = show_source(source, files.out, overwrite=files.overwrite)
    if output.json:
        print_json(shown.to_dict())
        return
    for note in shown.notes:
        talk(f"note: {note}", quiet=output.quiet)
    print(f"{shown.path} written: {shown.clean:,} clean and {shown.noisy:,} noisy images of {shown.source}")


def _show_noise(report: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("set", "images", "level", "90 % interval", "smooth", "kind", box=None, padding=(0, 2, 0, 0))
    for s in report.sets:
        shown = "-" if s.level.value != s.level.value else f"{s.level.value:.4g}"
        kind = "not determined" if s.whiteness is None else s.whiteness.sentence()
        kind = "clean" if s.clean else kind if s.rician is None else "Rician"
        interval = f"{s.level.low:.4g} to {s.level.high:.4g}"
        one = "" if s.one_level else " (differs)"
        table.add_row(escape(s.name), f"{s.images:,}", shown + one, interval, f"{s.level.smooth:.0%}", escape(kind))
    console.print(escape(f"{report.source}: noise levels in {report.unit}"))
    console.print(table)
    for s in report.sets:
        if s.whiteness is not None and not s.whiteness.white:
            pairs = ", ".join(f"{f:.2f}: {value:.2f}" for f, value in s.whiteness.spectrum)
            console.print(escape(f"spectrum of {s.name}, variance by cycles a pixel, mean 1: {pairs}"))
    for note in report.notes:
        console.print(escape(f"note: {note}"))


def _show(report: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=escape(report.source), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    heldout = "" if report.heldout is None else f" ({report.heldout:,} of them held out)"
    unit = "units of [-1, 1]"
    mapped = report.value_range
    rows = [
        ("images", f"{report.readable:,} of {report.count:,} readable{heldout}"),
        ("size", ", ".join(f"{size}: {count:,}" for size, count in list(report.resolution.items())[:8])),
        ("mode", ", ".join(f"{mode}: {count:,}" for mode, count in report.mode.items()) + f", {report.dtype}"),
        *([("values", f"{mapped[0]:.6g} to {mapped[1]:.6g} become -1 to 1")] if mapped else []),
        ("mean", ", ".join(f"{v:.4f}" for v in report.mean) + f" ({unit})"),
        ("std", ", ".join(f"{v:.4f}" for v in report.std) + f" ({unit})"),
        ("labels", "none" if report.labels is None else _classes(report)),
        ("duplicates", f"{report.duplicates:,}"),
    ]
    for key, value in rows:
        table.add_row(key, escape(value))
    console.print(table)
    if mapped:
        console.print(escape(f"noise levels in {report.unit}, and behind them in {unit}"))
    levels = Table("sigma", "images", "SNR (dB)", "estimated from the pixels", box=None, padding=(0, 2, 0, 0))
    for level in report.levels:
        snr = "clean" if level["snr_db"] is None else f"{level['snr_db']:.2f}"
        seen, guess = level["estimated_sigma"], "-"
        if seen is not None:
            guess = f"{level['estimated_told']:.4g} ({seen:.3f})" if mapped else f"{seen:.3f}"
        stated = f"{level['told']:.4g} ({level['sigma']:.4g})" if mapped else f"{level['sigma']:g}"
        levels.add_row(stated, f"{level['images']:,}", snr, guess)
    console.print(levels)
    for group in report.duplicate_examples:
        console.print(escape(f"copies: {', '.join(group)}"))
    for note in report.notes:
        console.print(escape(f"note: {note}"))
    for problem in report.problems[:20]:
        console.print(escape(f"problem: {problem['file']}: {problem['problem']}"))
    if len(report.problems) > 20:
        console.print(f"... and {len(report.problems) - 20:,} more problems (--json lists all)")
    console.print("usable" if report.usable else "not usable as it is")


def _classes(report: Any) -> str:
    """Counts by class; where classes have names, with the label that each is: `0 = ant: 3, 1 = bee: 5`."""
    numbers = {name: f"{label} = " for label, name in enumerate(report.class_names or ()) if name != str(label)}
    shown = [f"{numbers.get(name, '')}{name}: {count:,}" for name, count in list(report.labels.items())[:10]]
    return f"{report.classes} classes ({', '.join(shown)}{', ...' if len(report.labels) > 10 else ''})"
