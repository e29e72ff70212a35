"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# a deadline is a timed assertion: on a machine that does something else too, it fails a test that is right
settings.register_profile("ambient", deadline=None)
settings.load_profile("ambient")
