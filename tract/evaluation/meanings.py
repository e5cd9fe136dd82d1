"""What the names in a report mean, one sentence each; a reader need not know the paper."""

from __future__ import annotations

from tract.evaluation.metrics import METRIC_TABLE
from tract.inference.judgement import CUE, END, GIVEN, LENGTH, NONE, SCORE

METRIC_MEANINGS = {name: metric.meaning for name, metric in METRIC_TABLE.items()}
BASELINE_MEANINGS = {
    "constant": "the mean of the true scores for every item.",
    "length": "the log of the response's number of words: its correlations, and the errors of the least-squares line on it.",
    "question_mean": "the mean true score of the other responses to the same question, over the items that have such.",
}
# Why more than half of a predictor's draws may fail.
FAILURE_REASONS = {
    "decode_forced": "what was drawn after the answer cue is no score of the grid",
    "decode_free": "the judge wrote no score after the cue, or none of the grid",
}
FINISH_MEANINGS = {
    CUE: "ended by writing the answer cue.",
    SCORE: "stated its score in other words than the cue; cut before that, and the cue was appended.",
    END: "ended its turn without the cue, which was appended (status no_cue of a grade).",
    LENGTH: "ran into generation.max_cot_tokens and was cut there; the cue was appended (status truncated_cot of a grade).",
    GIVEN: "not sampled but given (evaluation.cots).",
    NONE: "no CoT: the score is read right after the prompt (predictor no_cot).",
}
PROMPT_MEANINGS = {
    "ok": "shown whole.",
    "shortened": "too long, so parts of it were shortened (data.shorten).",
    "dropped_overlong_prompt": "too long to be shown; a failed draw of every predictor.",
    "dropped_overlong": "too long together with its given CoT; a failed draw of every predictor.",
}
LEFT_OUT_MEANINGS = {
    "without_target": "no true score in the data; left out.",
    "without_given_cot": "no given CoT; left out.",
}
