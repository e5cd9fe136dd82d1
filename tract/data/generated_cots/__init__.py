"""CoTs that a judge generated: their file, checks against the data, which are kept, and the training items made of them."""
