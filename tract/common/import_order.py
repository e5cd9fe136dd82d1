"""Which file an import finds: no file of the user's working directory replaces a module of Python or of a library.

``python train.py`` puts the folder of the script first on ``sys.path``, and ``python -m`` the working directory: a ``queue.py`` or
``datasets/`` of the user's there would be imported, and run, in place of Python's or the library's. Entry points move that folder to
the end, where it still serves (``_target_: my_module.MyClass``); so do the processes of stages. Others that they start do not get it at
all. Imports ``sys`` alone at the top, which no file can replace, and so must ``tract/__init__.py``.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def script_folder_last() -> None:
    """Moves what Python puts first on ``sys.path`` for a script or ``-m`` to the end; to be called before anything else is imported."""
    if not sys.flags.safe_path:  # python -P puts nothing there
        sys.path.append(sys.path.pop(0))


def add_last(paths: "list[str]") -> None:
    """Looks, after all else, where another process looks, for classes and functions of the user's that a configuration names."""
    sys.path.extend(path for path in paths if path not in sys.path)


def for_children(environment: "Mapping[str, str]") -> dict[str, str]:
    """What the environment of Python processes has to hold, so that they find this very package, and nothing by their working directory.

    Args:
        environment: that of this process; its own PYTHONPATH keeps its meaning.
    """
    import os
    from pathlib import Path

    shim = Path(__file__).resolve().parents[2] / "scripts" / "package_path"  # absent where the package is installed without a checkout
    before = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    first = [str(shim)] if shim.is_dir() and str(shim) not in before else []
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([*first, *before])}
