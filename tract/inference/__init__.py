"""Sampling CoTs and reading score distributions, behind one backend interface."""
