"""The trainer's commands: typed options, nothing else."""
