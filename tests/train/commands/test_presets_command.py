"""`ambient presets`: every preset with its purpose and size, in a page that fits."""

from __future__ import annotations

import json

from invoke import ambient

from ambient_train.settings.presets import PRESETS


def test_every_preset_is_listed_with_what_it_is_for() -> None:
    result = ambient("presets")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name, preset in PRESETS.items():
        assert f"{name:12}{preset.purpose}" in lines


def test_presets_are_listed_for_programs() -> None:
    listed = json.loads(ambient("presets", "--json").stdout)["presets"]
    assert list(listed) == list(PRESETS)
    assert listed["digits"]["duration_nimg"] == PRESETS["digits"].duration_nimg
    assert listed["cifar10"]["train"]["network"] == PRESETS["cifar10"].train["network"]
