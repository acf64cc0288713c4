"""cast: f32 rows rounded to another float dtype, to the nearest, ties to even.

x [rows, width] f32 inside a wider buffer, out [rows, width] bf16; on CUDA also f32 or f16
"""
