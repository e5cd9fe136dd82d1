"""Samples CoTs with a fine-tuned judge. The generation stage is not part of this version; the script says so and ends."""

from tract.entry import not_in_this_version

if __name__ == "__main__":
    not_in_this_version("generate_cot.py", "CoT generation for stage 2")
