"""The stages, each of which reads folders and writes one."""
