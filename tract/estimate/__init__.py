"""What a run will need, before it: memory, and floating-point operations. Pure arithmetic."""
