"""Images with a noise level each: where they come from, how they are corrupted, how archives are prepared."""
