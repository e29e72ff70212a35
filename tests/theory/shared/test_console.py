"""Errors of the machine that a user can cause: one sentence and exit code 3; others are not hidden."""

from __future__ import annotations

import errno
import os

import pytest
import typer

from ambient_theory.shared.console import command, say


def failing(number: int) -> None:
    @command
    def run() -> None:
        raise OSError(number, os.strerror(number), "results.json")

    run()


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG]
)
def test_a_disk_that_fails_is_one_sentence(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        failing(number)
    assert left.value.exit_code == 3
    assert capsys.readouterr().err == f"ambient: {os.strerror(number)} (results.json)\n"


def test_an_error_that_no_user_causes_is_not_hidden() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        failing(errno.EBADF)


def test_a_sentence_on_stdout_holds_nothing_that_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("the set a\x1b]0;x\x07b\nc")
    assert capsys.readouterr().out == "the set a\\x1b]0;x\\x07b\\nc\n"
