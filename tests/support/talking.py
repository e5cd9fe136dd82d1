"""How the talking model (see ``conftest``) is loaded as a judge: with the wording that it was trained on."""

from __future__ import annotations

from typing import Any

CUE = " So the overall score is "
PROMPT = {"system": "", "blocks": ["{instruction}\n{response}"], "cue": CUE, "require_cue_in_prompt": False}
TALKING: dict[str, Any] = {"prompt": PROMPT, "max_cot_tokens": 60, "max_length": 1500, "least_score_mass": 0.0}
