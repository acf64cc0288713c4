"""silu(gate) * up and gelu(gate) * up, rounded as they are written."""

from __future__ import annotations

from nanocupy.device.cpu.raw import load_i64
from nanocupy.device.cpu.simd import fn, i4, vload, vload_first, vstore, vstore_first
from nanocupy.dtypes import F32
from nanocupy.kernels.elementwise.cpu_body import vgelu, vsilu
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.quantize.cpu import ScratchRounding
from nanocupy.kernels.quantize.cpu_body import round_groups
from nanocupy.kernels.silu_mul.cpu import GatedArgs

A = indices(GatedArgs)
OUT = indices(ScratchRounding, len(A))


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
        """Compute this thread's share of the groups of every row: one row keeps all busy."""
        width, group, kind = a[A.width], a[OUT.group], a[OUT.kind]
        scratch, groups = (
            a[OUT.scratch] + a[OUT.scratch_bytes] * thread,
            (width + group - 1) // group,
        )
        begin, end = groups * thread // threads, groups * (thread + 1) // threads
        for row in range(load_i64(a[A.rows])):
            out = a[A.out] + a[OUT.row_bytes] * row
            gate, up = a[A.gate] + a[A.gate_stride] * row, a[A.up] + a[A.up_stride] * row
            to = out if kind == F32 else scratch
            columns(to, gate, up, begin * group, min(end * group, width))
            if kind != F32:
                round_groups(scratch, out, width, group, kind, a[OUT.zero], begin, end)
        return 0

    return kernel


silu_mul, gelu_mul = _gated(vsilu), _gated(vgelu)
