"""Denoising errors by level: two goods, their worths, the formula V/(V + v) and its test."""
