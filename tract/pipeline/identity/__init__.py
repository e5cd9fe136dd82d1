"""What a stage depends on: configuration, parents and code."""
