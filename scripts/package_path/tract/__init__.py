"""Lets a process that a checkout started import that checkout's package, without the files beside it: this folder is on PYTHONPATH.

The checkout itself cannot be: what is on PYTHONPATH precedes Python's own modules, so that any ``queue.py`` beside ``train.py`` would
be imported in their place. It goes to the end of ``sys.path`` instead.
"""

import sys

_checkout = __file__.rpartition("/scripts/")[0]
sys.path.insert(0, _checkout)
del sys.modules[__name__]  # the package takes the place of this module, also for whoever is importing it now
import tract  # noqa: E402, F401  # it imports nothing that a file could stand in for

sys.path.remove(_checkout)
if _checkout not in sys.path:
    sys.path.append(_checkout)
