"""What the names in a report mean, one sentence each; a reader need not know the paper."""

from __future__ import annotations

from tract.generation.judgement import CUE, END, GIVEN, LENGTH, NONE, SCORE

METRIC_MEANINGS = {
    "pearson_r": "linear correlation of predicted and true scores; 1 is a straight rising line.",
    "spearman_rho": "Pearson correlation of the ranks, ties sharing their mean rank: only the order counts.",
    "kendall_tau": "share of pairs in the right order minus the share in the wrong one, corrected for ties.",
    "rmse": "root of the mean squared error, in points; large errors weigh more.",
    "mae": "mean absolute error, in points.",
    "accuracy_within_half": "share of items whose predicted score is at most 0.5 points from the true one.",
    "score_mass": "probability that the model gives to all scores of the grid together where the score is read; "
    "far below 1 it wanted to write something else there.",
    "failure_rate": "share of the draws that gave no score of their own; they count with the declared fallback.",
}
PREDICTOR_MEANINGS = {
    "rail": "mean of the grid's scores, each weighted with its probability after the answer cue; probability outside the grid "
    "counts as zero points (the paper's predictor).",
    "rail_normalized": "the same mean, divided by the probability of the whole grid.",
    "argmax": "the most probable score of the grid after the answer cue.",
    "median": "the score at which the cumulated probability of the grid, after the answer cue, passes one half.",
    "decode_forced": "the score that the model writes when the answer cue is put after its CoT.",
    "decode_free": "the score parsed from what the model writes freely, cue and score included.",
    "no_cot": "rail read right after the prompt and the answer cue, without any CoT.",
}
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
