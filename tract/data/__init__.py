"""Data: sources -> examples -> token ids -> optimizer steps -> batches."""
