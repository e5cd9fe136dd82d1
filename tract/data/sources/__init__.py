"""Sources of judge examples: raw rows -> ``JudgeExample``, or why not."""
