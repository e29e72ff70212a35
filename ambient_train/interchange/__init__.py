"""Trained networks in and out: one loader, hub folders, EDM snapshots. Nothing that is read is executed."""
