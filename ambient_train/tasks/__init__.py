"""What a command calls: train, generate, evaluate."""
