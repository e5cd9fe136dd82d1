"""Rubrics in the forms that people write them: text, mappings, marks of scores."""
