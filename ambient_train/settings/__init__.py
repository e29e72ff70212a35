"""Configurations and presets. Pure: no data is read and no network is built here."""
