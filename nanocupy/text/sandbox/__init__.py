"""The sandbox of chat templates: jinja2 with transformers' settings and strict limits.

Templates are programs that come with models. They run in jinja2's sandbox, with only those
operators, methods, filters, tests and functions that real templates use (a file each), bounded in
time and memory (`metering`). Through every operation, text that the template wrote is told apart
from text of messages (`provenance`). No other package imports jinja2.
"""

from __future__ import annotations

from nanocupy.text.sandbox.environment import Template
from nanocupy.text.sandbox.provenance import flags, join, marked, template_text

__all__ = ["Template", "flags", "join", "marked", "template_text"]
