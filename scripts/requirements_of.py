"""Prints what an installed package requires here, a line each, without the packages that are named behind it.

Run: python scripts/requirements_of.py PACKAGE [LEFT_OUT ...]
"""

import sys
from importlib.metadata import requires

from packaging.requirements import Requirement


def main(package: str, *left_out: str) -> None:
    """Writes lines that pip reads with -r."""
    for requirement in map(Requirement, requires(package) or ()):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in left_out:
            requirement.marker = None
            print(requirement)


if __name__ == "__main__":
    main(*sys.argv[1:])
