"""What every command can be asked about its own talk; where its files go is each command's own."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_theory.shared.options import Checked, option

OUTPUT = "Output"
"""Panel of the help that holds these options and every command's own about its files."""


@dataclass(frozen=True, kw_only=True)
class AsJson(Checked):
    """How the result is printed."""

    json: bool = option(False, "Print the result as JSON on stdout", panel=OUTPUT, in_files=False)


@dataclass(frozen=True, kw_only=True)
class Output(AsJson):
    """What goes to stdout, and what to stderr."""

    quiet: bool = option(False, "No progress, no talk on stderr", short="-q", panel=OUTPUT, in_files=False)
