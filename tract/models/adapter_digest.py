"""What distinguishes trained adapters."""

from __future__ import annotations

import hashlib
from pathlib import Path


def adapter_digest(folder: Path) -> str:
    """SHA-256 (hex) over the contents of an adapter's files, ``adapter_*``, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("adapter_*")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
