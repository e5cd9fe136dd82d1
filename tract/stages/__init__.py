"""Stages: each reads run folders and writes one."""
