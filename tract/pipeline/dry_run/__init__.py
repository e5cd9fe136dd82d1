"""The dry run: memory, tokens, steps and time before anything is trained."""
