"""CoTs that a judge generated: their file, which of them are kept, and the training items made of them."""
