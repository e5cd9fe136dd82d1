"""A rubric from a YAML file: ``criteria``, and ``descriptions`` of what deserves each score."""

from __future__ import annotations

from pathlib import Path

import yaml

from tract.errors import DataError
from tract.judge.requests import GradeRequest, rubric_of
from tract.schema import Rubric


def read_rubric(path: Path) -> Rubric:
    """The rubric in a YAML (or JSON) file.

    Raises:
        DataError: if the file cannot be read or a key cannot be used.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise DataError(f"holds a {type(content).__name__}; a mapping with criteria and descriptions is accepted")
        rubric = rubric_of(content)
        GradeRequest("x", "", rubric)  # which checks its texts
    except OSError as error:
        raise DataError(f"--rubric {path}: cannot be read ({error.strerror}); give a YAML file with criteria and descriptions") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"--rubric {path}: is no YAML: {' '.join(str(error).split())}") from None
    except DataError as error:
        raise DataError(f"--rubric {path}: {error}") from None
    assert rubric is not None
    return rubric
