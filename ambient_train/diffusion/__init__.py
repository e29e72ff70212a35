"""Noise levels, losses, augmentation, samplers, averages: one idea a file, pure functions."""
