"""A rubric from a file: YAML or JSON with ``criteria`` and ``descriptions``, or the text of a rubric as it was pasted."""

from __future__ import annotations

from pathlib import Path

import yaml

from tract.common.errors import DataError
from tract.data.rubrics.mapping import repeated_key
from tract.judge.requests import GradeRequest, rubric_of
from tract.text.schema import Rubric

# Files with another suffix hold YAML or JSON.
TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".text", ".rst")


def read_rubric(path: Path) -> Rubric:
    """The rubric in a file: a text by its suffix (.txt, .md, ...), else YAML or JSON.

    Raises:
        DataError: if the file cannot be read or a key cannot be used.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rubric = rubric_of(text if path.suffix.lower() in TEXT_SUFFIXES else _mapping(text))
        GradeRequest("x", "", rubric)  # which checks its texts
    except OSError as error:
        raise DataError(f"--rubric {path}: cannot be read ({error.strerror}); give a YAML file with criteria and descriptions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = f"is no YAML: {' '.join(str(error).split())}; a file with the text of a rubric ends in .txt or .md"
        raise DataError(f"--rubric {path}: {reason}") from None
    except DataError as error:
        raise DataError(f"--rubric {path}: {error}") from None
    assert rubric is not None
    return rubric


def _mapping(text: str) -> dict[object, object]:
    content = yaml.safe_load(text)
    if repeated := repeated_key(text):
        raise DataError(f"the key {repeated} stands twice; each may stand once")
    if not isinstance(content, dict):
        accepted = "a mapping with criteria and descriptions is accepted; a file with the text of a rubric ends in .txt or .md"
        raise DataError(f"holds a {type(content).__name__}; {accepted}")
    return content
