"""Features of images, one extractor a file."""
