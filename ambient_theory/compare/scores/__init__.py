"""One score, one worth: what a group of comparable cells says of the price of a noisy image."""
