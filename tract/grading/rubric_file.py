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
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        if repeated := _repeated_key(yaml.compose(text, Loader=yaml.SafeLoader)):
            raise DataError(f"the key {repeated} stands twice; each may stand once")
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


def _repeated_key(node: yaml.Node | None) -> str | None:
    """A key that stands twice in one mapping, of which YAML would keep the last; 1 and 1.0 are the same."""
    if isinstance(node, yaml.MappingNode):
        keys = [_number_or_text(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        own = next((str(key) for place, key in enumerate(keys) if key in keys[:place]), None)
        return own or next((found for _, value in node.value if (found := _repeated_key(value))), None)
    return None


def _number_or_text(key: str) -> float | str:
    try:
        return float(key)
    except ValueError:
        return key
