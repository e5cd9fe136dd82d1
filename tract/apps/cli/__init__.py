"""The command line of a judge at work: ``tract grade``, ``inspect``, ``compare``, ``calibrate``, ``export``, ``serve``."""
