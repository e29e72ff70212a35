"""Grids of trainings: the grid, the pool that runs it, its report, its plan, SLURM."""
