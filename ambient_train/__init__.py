"""Diffusion models on mixtures of clean and noisy images: data, networks, training, sampling, evaluation, sweeps."""
