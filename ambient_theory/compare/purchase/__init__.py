"""What to buy at a budget, where a noisy image is one good or two."""
