"""What people call a model. Standard library alone: reports and cards of models that are not installed here need it too."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

# How GGUF files end that are called after what their numbers are stored in: Q4_1, q8_0, IQ4_XS, Q4_K_M, F16.
_QUANTISED = re.compile(r"[._-](?:I?Q\d\w*|B?F16|F32|FP\d+)$", re.IGNORECASE)


def model_name(name_or_path: str, package: str | None) -> str:
    """What reports and cards call a model: its hub id or folder as configured; of a GGUF file the name, without folder and quantisation.

    Args:
        name_or_path: hub id, folder or .gguf file. package: the Python package in which it is a pattern, or None.
    """
    if not name_or_path.endswith(".gguf"):
        return f"{package}/{name_or_path}" if package else name_or_path
    file = Path(name_or_path)
    if package is not None:
        # Cards are read where the package is not installed, too.
        spec = importlib.util.find_spec(package)
        matches = sorted(Path(spec.origin).parent.glob(name_or_path)) if spec is not None and spec.origin else []
        if len(matches) != 1:
            return package.replace("_", "-")
        file = matches[0]
    return _QUANTISED.sub("", file.stem) or file.stem
