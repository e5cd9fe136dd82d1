"""A transformers model in this process: the live KV cache, and rows where that is not exact."""
