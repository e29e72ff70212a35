"""What one of two hosts runs: `python host_member.py RUN ADDRESS`, a tiny training whose machines notice losses early.

With `--pause FILE` its rank writes FILE in the middle of the training and waits there until FILE is gone, once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import tiny_run

from ambient_theory.shared.console import command
from ambient_train.settings.run_options import LaunchOptions
from ambient_train.training import machines, meeting
from ambient_train.training.launch import launch
from ambient_train.training.world import join_group

MIDDLE = 160


def rank(run: Path, pause: Path | None) -> None:
    with join_group("cpu") as world:

        def listen(progress: Any) -> None:
            if pause is None or progress.phase != "training" or progress.done != MIDDLE:
                return
            try:
                pause.with_suffix(".once").touch(exist_ok=False)
            except FileExistsError:
                return
            pause.touch()
            while pause.exists():
                time.sleep(0.01)

        tiny_run.run(run, world=world, listener=listen)


@command
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("address")
    parser.add_argument("--pause", type=Path)
    parser.add_argument("--restarts", type=int, default=0)
    given = parser.parse_args()
    machines.HEARTBEAT_S, machines.SILENT_HEARTBEATS, machines.STORE_S = 1, 6, 6.0
    meeting.SAID_AFTER_S = 0.5
    options = LaunchOptions(nodes=2, rendezvous=given.address, max_restarts=given.restarts, rendezvous_timeout_s=240)
    launch(rank, {"run": given.run, "pause": given.pause}, options, device="cpu")


if __name__ == "__main__":
    import host_member  # so that the ranks find the function by a name that is theirs too

    host_member.main()
