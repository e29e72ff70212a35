"""What several commands share: options that settle nothing about a result, and the adviser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ambient_theory.shared.advice import Adviser

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no talk.", rich_help_panel="Output")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel="Machine and processes")]


def adviser_of(context: typer.Context) -> Adviser:
    """The theory as a sweep sees it: `cli` hands over how to make it, so that nothing here imports it."""
    made: Adviser = context.obj()
    return made
