"""The CPU that code is generated for: its name, its features, and the SIMD level chosen.

`NANOCUPY_SIMD` forces a lower level than the host's, to test the portable paths: `avx512`, `avx2`,
`generic`. The default is everything the host has.
"""

from __future__ import annotations

import functools
import os

import llvmlite.binding as llvm

_AVX2 = [
    "sse3",
    "ssse3",
    "sse4.1",
    "sse4.2",
    "popcnt",
    "cx16",
    "sahf",
    "movbe",
    "avx",
    "avx2",
    "bmi",
    "bmi2",
    "f16c",
    "fma",
    "lzcnt",
    "xsave",
    "fsgsbase",
]
LEVELS = ("native", "avx512", "avx2", "generic")


@functools.cache
def triple() -> str:
    return str(llvm.get_process_triple())


def is_x86() -> bool:
    return triple().startswith(("x86_64", "i686", "i386"))


def is_arm64() -> bool:
    return triple().startswith(("aarch64", "arm64"))


def is_windows() -> bool:
    return "windows" in triple()


@functools.cache
def _host() -> frozenset[str]:
    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


def level() -> str:
    """The SIMD level in force: `avx512`, `avx2`, `neon` or `generic`."""
    asked = os.environ.get("NANOCUPY_SIMD", "native").lower()
    if asked not in LEVELS:
        raise ValueError(f"NANOCUPY_SIMD={asked!r}: expected one of {', '.join(LEVELS)}")
    best = "generic"
    if is_arm64():
        best = "neon"
    elif "avx512f" in _host() and "avx512bw" in _host():
        best = "avx512"
    elif set(_AVX2) <= _host():
        best = "avx2"
    if asked == "native" or best == asked:
        return best
    if asked == "generic" or (best, asked) == ("avx512", "avx2"):
        return asked
    raise ValueError(f"NANOCUPY_SIMD={asked}: this CPU's level is {best}")


def features() -> frozenset[str]:
    """LLVM feature names the generated code may use."""
    return {
        "avx512": _host() | _vnni(),
        "neon": _host(),
        "avx2": frozenset(_AVX2),
        "generic": frozenset(),
    }[level()]


def dots_bytes(bits: int) -> bool:
    """Whether products of `bits`-bit codes are faster with 8-bit activations than with 16-bit."""
    return "avx512vnni" in features() or (bits == 4 and "avx2" in features())


def dots_bf16() -> bool:
    """Whether one instruction multiplies and adds pairs of bf16."""
    return "avx512bf16" in features()


def _vnni() -> frozenset[str]:
    """Keep LLVM from splitting vpdpwssd in two, which would shorten chains that run in parallel."""
    known = "avx512vnni" in _host() and llvm.llvm_version_info >= (16,)
    return frozenset({"fast-dpwssd"}) if known else frozenset()


def cpu_name() -> str:
    """LLVM's CPU name for the level: the host's own unless a lower level is forced."""
    if level() == "avx2" and "avx512f" in _host():
        return "haswell"
    return "generic" if level() == "generic" else str(llvm.get_host_cpu_name())


def feature_string() -> str:
    return ",".join(f"+{name}" for name in sorted(features()))
