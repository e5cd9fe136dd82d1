"""What every room may use: errors, durable files, safe paths, masking of secrets, signals, process groups."""
