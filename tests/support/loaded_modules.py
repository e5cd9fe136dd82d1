"""Which modules a script loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch", "transformers", "tokenizers", "lightning", "torchmetrics", "peft", "datasets", "pyarrow", "pandas", "numpy", "scipy",
    "matplotlib", "wandb",
}  # fmt: skip
# Runs a script as Python would, then says what it has loaded.
_RUN = """
import json, runpy, sys
sys.argv = sys.argv[1:]
status = 0
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    status = end.code or 0
print("\\n" + json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python process in the root of the checkout."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200, check=True)


def status_and_modules(*command: str) -> tuple[int, set[str]]:
    """Exit status of a script, and the top-level names of the modules that it has loaded."""
    status, modules = json.loads(python("-c", _RUN, *command).stdout.splitlines()[-1])
    return status, set(modules)
