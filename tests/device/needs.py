"""What tests of the emulated device need of the machine."""

from __future__ import annotations

import os
import shutil

import pytest

COMPILER = shutil.which(os.environ.get("CXX") or "g++")

# In CI a missing compiler is a failure: there these tests must run.
needs_compiler = pytest.mark.skipif(
    COMPILER is None and os.environ.get("CI") != "true",
    reason="needs g++ (the emulated device compiles CUDA kernels with it)",
)
