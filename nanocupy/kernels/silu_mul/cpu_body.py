"""silu(gate) * up and gelu(gate) * up, rounded as they are written."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i64
from nanocupy.device.cpu.simd import fn, i4, vload, vload_first, vstore, vstore_first
from nanocupy.kernels.elementwise.cpu_body import vgelu, vsilu
from nanocupy.kernels.quantize.cpu_body import F32, round_groups


def _gated(activation):
    @fn
    def columns(out, gate, up, first, last):
        """Columns first to last of a row, the first being a multiple of sixteen."""
        i = first
        while i + 16 <= last:
            vstore(out + 4 * i, activation(vload(gate + 4 * i)) * vload(up + 4 * i))
            i += 16
        if i < last:
            at, rest = 4 * i, i4(last - i)
            g, u = vload_first(gate + at, rest), vload_first(up + at, rest)
            vstore_first(out + at, rest, activation(g) * u)

    def kernel(a, thread, threads):
        """a: out, gate, up, rows*, width, gate stride, up stride (bytes), then as
        `quantize.cpu.arguments`.

        Every thread takes its share of the groups of every row, so that one row keeps all busy.
        """
        gate, up, width = a[1], a[2], a[4]
        row_bytes, group, kind = a[9], a[10], a[11]
        scratch, groups = a[7] + a[8] * thread, (width + group - 1) // group
        begin, end = groups * thread // threads, groups * (thread + 1) // threads
        for row in range(load_i64(a[3])):
            out, g, u = a[0] + row_bytes * row, gate + a[5] * row, up + a[6] * row
            to = out if kind == F32 else scratch
            columns(to, g, u, begin * group, min(end * group, width))
            if kind != F32:
                round_groups(scratch, out, width, group, kind, a[12], begin, end)
        return 0

    return kernel


silu_mul, gelu_mul = _gated(vsilu), _gated(vgelu)
