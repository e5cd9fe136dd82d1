"""What an export is asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportOptions:
    """What an export is asked for.

    Attributes:
        adapter: write the LoRA adapter alone, not merged weights. base: hub id or folder of what it belongs on; None for the run's.
        dtype: of the weights, one of ``DTYPES``; None for float32 where an adapter is merged, else the weights' own.
        name: what the judge is called; None for the run's name.
        licence: of the export, as an identifier of the hub; None for that of the base model. data_licence: None for what is known.
        overwrite: replace an earlier export.
    """

    adapter: bool = False
    base: str | None = None
    dtype: str | None = None
    name: str | None = None
    licence: str | None = None
    data_licence: str | None = None
    overwrite: bool = False
