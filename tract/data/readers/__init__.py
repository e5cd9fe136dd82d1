"""Raw rows of files, with their place, and typed values from them."""
