"""`ambient data`: prepare, corrupt, check."""
