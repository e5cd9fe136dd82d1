"""Programs around judges: the command line, the server, export, grading of files, comparison of runs, the W&B dashboard."""
