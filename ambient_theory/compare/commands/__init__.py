"""The commands `compare`, `price` and `budget`, their options and what they print."""
