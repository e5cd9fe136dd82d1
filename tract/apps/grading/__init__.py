"""Whole files of responses: graded row by row into a file, compared with each other, and used to calibrate a judge."""
