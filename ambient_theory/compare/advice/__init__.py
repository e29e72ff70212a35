"""What a sweep asks while it runs: the next cells, a rough price, the page."""
