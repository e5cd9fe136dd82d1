"""Jobs of a Hydra multirun."""
