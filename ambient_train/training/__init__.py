"""The loop and what it stands on: checkpoints, many processes, cost."""
