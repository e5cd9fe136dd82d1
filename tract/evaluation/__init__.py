"""From judgements to scores, metrics with intervals, and reports. Pure but for the report's files."""
