"""Scores of generated images: features -> statistics -> distance, each with its extractor, n and standard error."""
