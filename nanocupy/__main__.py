"""`python -m nanocupy` is `nanocupy`."""

from __future__ import annotations

import sys

from nanocupy.cli import main

sys.exit(main())
