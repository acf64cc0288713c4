"""Where chat templates run: jinja2 with transformers' settings, and nothing that they can misuse.

Templates come with the model. They are programs, so they run in jinja2's sandbox, and of what that
leaves open only what real templates use is there: operators, methods, filters, tests and functions,
a file each, bounded in time and memory (`budget`). Strings that a template writes itself are told
from those of messages through every one of them (`provenance`). The one package that imports
jinja2.
"""

from __future__ import annotations

from nanocupy.text.sandbox.environment import Template
from nanocupy.text.sandbox.provenance import flags, join, marked, written

__all__ = ["Template", "flags", "join", "marked", "written"]
