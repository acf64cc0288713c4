"""Kernels that do nothing but reach the machine's limits. Source; see `limits.py`."""

from __future__ import annotations

from nanocupy.device.cpu.simd import (
    f4,
    i4,
    iadd,
    idot_u8s8,
    iload,
    isplat,
    istore,
    to_int,
    vfma,
    vload,
    vsplat,
)


def read(a, thread, threads):
    """Add up a stretch of memory, in lines of 64 bytes. a: memory, bytes, out (a line a thread)."""
    lines = a[1] // 512
    first, last = lines * thread // threads, lines * (thread + 1) // threads
    p = a[0] + 512 * first
    s0 = s1 = s2 = s3 = isplat(i4(0))
    for _ in range(last - first):
        s0 = iadd(s0, iload(p))
        s1 = iadd(s1, iload(p + 64))
        s2 = iadd(s2, iload(p + 128))
        s3 = iadd(s3, iload(p + 192))
        s0 = iadd(s0, iload(p + 256))
        s1 = iadd(s1, iload(p + 320))
        s2 = iadd(s2, iload(p + 384))
        s3 = iadd(s3, iload(p + 448))
        p += 512
    istore(a[2] + 64 * thread, iadd(iadd(s0, s1), iadd(s2, s3)))
    return 0


def fma(a, thread, threads):
    """Twelve independent chains of fma. a: steps, out."""
    c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = c8 = c9 = ca = cb = vload(a[1] + 64 * thread)
    x, y = vsplat(f4(0.999)), vsplat(f4(0.001))
    for _ in range(a[0]):
        c0, c1, c2, c3 = vfma(c0, x, y), vfma(c1, x, y), vfma(c2, x, y), vfma(c3, x, y)
        c4, c5, c6, c7 = vfma(c4, x, y), vfma(c5, x, y), vfma(c6, x, y), vfma(c7, x, y)
        c8, c9, ca, cb = vfma(c8, x, y), vfma(c9, x, y), vfma(ca, x, y), vfma(cb, x, y)
    total = (c0 + c1) + (c2 + c3) + (c4 + c5) + (c6 + c7) + (c8 + c9) + (ca + cb)
    istore(a[1] + 64 * thread, to_int(total))
    return 0


def dot(a, thread, threads):
    """Twelve independent chains of byte dot products. a: steps, out."""
    c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = c8 = c9 = ca = cb = iload(a[1] + 64 * thread)
    x, y = isplat(i4(0x01020301)), isplat(i4(0x03010201))
    for _ in range(a[0]):
        c0, c1, c2 = idot_u8s8(c0, x, y), idot_u8s8(c1, x, y), idot_u8s8(c2, x, y)
        c3, c4, c5 = idot_u8s8(c3, x, y), idot_u8s8(c4, x, y), idot_u8s8(c5, x, y)
        c6, c7, c8 = idot_u8s8(c6, x, y), idot_u8s8(c7, x, y), idot_u8s8(c8, x, y)
        c9, ca, cb = idot_u8s8(c9, x, y), idot_u8s8(ca, x, y), idot_u8s8(cb, x, y)
    low = iadd(iadd(iadd(c0, c1), iadd(c2, c3)), iadd(c4, c5))
    istore(a[1] + 64 * thread, iadd(low, iadd(iadd(iadd(c6, c7), iadd(c8, c9)), iadd(ca, cb))))
    return 0
