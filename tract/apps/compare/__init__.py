"""Runs side by side: what was run, variants and their seeds, numbers with intervals, tables, plots and a page."""
