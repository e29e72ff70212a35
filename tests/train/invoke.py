"""The command line as a test calls it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from cli import app


def ambient(*arguments: object) -> Result:
    """`ambient ARGUMENTS` in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])
