"""A kernel of one's own between compiled operations: running sums of rows.

python examples/custom_kernel.py             Numba, on the CPU
python examples/custom_kernel.py emulated    CUDA, on a GPU that is played by g++
"""

import sys

import nanocupy.core as mx
from nanocupy.device.emulated import EmulatedDevice


def sums(x, out, thread, threads):
    for row in range(thread, x.shape[0], threads):  # each thread takes its share of the rows
        out[row, 0] = x[row, 0]
        for i in range(1, x.shape[1]):
            out[row, i] = out[row, i - 1] + x[row, i]


CUDA = """
  const int row = blockIdx.x * blockDim.x + threadIdx.x, width = WIDTH;
  if (row >= x_size / width) return;
  for (int i = row * width; i < row * width + width; i++)
    out[i] = i % width ? out[i - 1] + x[i] : x[i];
"""
kernel = mx.fast.custom_kernel("sums", ["x"], ["out"], cpu=sums, cuda=CUDA.replace("WIDTH", "5"))


def function(x):
    (out,) = kernel(
        inputs=[x * 2], output_shapes=[x.shape], output_dtypes=[x.dtype], grid=(x.shape[0], 1, 1)
    )
    return mx.tanh(out - 1)


device = EmulatedDevice() if "emulated" in sys.argv else None
print(mx.compile(function, device=device)(mx.array([[0.1] * 5, [0.2] * 5])))
