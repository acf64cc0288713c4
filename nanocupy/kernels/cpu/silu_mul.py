"""silu(gate) * up."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i64
from nanocupy.device.cpu.simd import vexp, vload, vneg, vsplat, vstore


def silu_mul(a, thread, threads):
    """a: gate, up, out [rows, width] f32, rows*, width (a multiple of 16)."""
    gate, up, out = a[0], a[1], a[2]
    chunks = load_i64(a[3]) * a[4] // 16
    one = vsplat(1.0)
    for i in range(chunks * thread // threads, chunks * (thread + 1) // threads):
        g = vload(gate + 64 * i)
        vstore(out + 64 * i, g / (one + vexp(vneg(g))) * vload(up + 64 * i))
    return 0
