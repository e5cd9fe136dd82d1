"""Callbacks of the trainer, each by what it knows: packing, throughput, checkpoints, the best weights, validations."""
