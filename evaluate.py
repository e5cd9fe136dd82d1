"""Evaluates judges on benchmarks. The evaluation stage is not part of this version; the script says so and ends."""

from tract.entry import not_in_this_version

if __name__ == "__main__":
    not_in_this_version("evaluate.py", "evaluation on sampled CoTs")
