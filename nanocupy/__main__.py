"""`python -m nanocupy` is `nanocupy`.

Python puts the current folder first on the path of `-m`. It may be a model's, with files of
somebody else, so it is removed: this package has been found by then.
"""

from __future__ import annotations

import os
import sys


def _leave_the_current_folder() -> None:
    """Remove the current folder from the path, unless this package is in it."""
    safe = getattr(sys.flags, "safe_path", False)  # from Python 3.11 on: it is not there
    here, ours = os.path.realpath(sys.path[0]), os.path.dirname(os.path.dirname(__file__))
    if not safe and here == os.path.realpath(os.curdir) and here != os.path.realpath(ours):
        del sys.path[0]


if __name__ == "__main__":
    _leave_the_current_folder()
    from nanocupy.cli import main

    sys.exit(main())
