"""Settings of a judge, for tests of what is kept and changed in them."""

from __future__ import annotations

from typing import Any

from tract.artifacts.judge_settings import BaseModel, JudgeSettings
from tract.inference.sampling import Sampling
from tract.text.prompts import PromptTemplate


def made_settings(**changes: Any) -> JudgeSettings:
    """Those of a judge with scores 1 to 5, with changes."""
    values: dict[str, Any] = {
        "name": "x",
        "prompt": PromptTemplate("template", "", ("{response}",), " Score: ", True, False, False, True),
        "layout": {"grid": ["1", "2", "3", "4", "5"]},
        "use_cot": True,
        "predictor": "rail",
        "n_cot": 1,
        "sampling": Sampling(1.0, 1.0, 1.0, 8),
        "seed": 0,
        "max_length": 64,
        "overlong": "refuse",
        "shorten": (),
        "least_score_mass": 0.5,
        "dtype": "float32",
        "adapter": False,
        "base_model": BaseModel("base"),
    }
    return JudgeSettings(**{**values, **changes})
