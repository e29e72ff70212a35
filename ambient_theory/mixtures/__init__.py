"""k-atomic laws and their estimators under noise that differs from sample to sample."""
