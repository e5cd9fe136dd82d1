"""The two-stage pipeline: stages as file contracts, their order, launching, tracking, sweeps."""
