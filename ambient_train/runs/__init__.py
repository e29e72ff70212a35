"""A run from its settings to its scores: resolve, run, session, directory, records, loggers."""
