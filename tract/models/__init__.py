"""Loading and saving models, adapters and tokenizers; the packed forward pass over token trees."""
