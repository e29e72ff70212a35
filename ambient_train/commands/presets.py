"""The command `ambient presets`."""

from __future__ import annotations

from ambient_theory.shared.console import command, print_json
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import AsJson
from ambient_theory.shared.signals import leave_on_signal

EXAMPLE = "Example: ambient presets"


@command
@leave_on_signal()
@with_options
def presets(output: AsJson) -> None:
    """List presets: what each is for, its network, for how long it trains. `ambient config show NAME` prints one."""
    from ambient_train.tasks.presets import list_presets

    listed = list_presets()
    if output.json:
        print_json(listed.to_dict())
    else:
        listed.show()
