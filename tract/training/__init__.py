"""Building and running the Lightning trainer: callbacks, strategies, determinism, graceful stop."""
