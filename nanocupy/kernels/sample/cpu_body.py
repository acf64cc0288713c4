"""Sampling: filters are thresholds, found by radix selection on the bits of the probabilities.

Floats that are not negative order like their bits. Every filter keeps the probabilities at or above
some value, so each sets those below its value to 0, in place, and the next one sees what is left.

f32 with a Python float gives f64: sums that start at 0.0 are f64.

A thread's scratch:

    P        logits, then probabilities, of one row, padded to whole blocks of 64 with -inf
    VALUES   those that may be the threshold (as long as P)
    TALLY    256 int64: weights by digit
"""

from __future__ import annotations

from math import inf, log, nan

from nanocupy.device.cpu.raw import (
    bits_of,
    float_of,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
    store_i64,
)
from nanocupy.device.cpu.simd import (
    f4,
    fn,
    i4,
    iadd,
    iand,
    iload,
    isar,
    isplat,
    istore,
    isub,
    isum,
    vexp,
    vfirst,
    vload,
    vload_first,
    vmax,
    vmaxval,
    vsplat,
    vstore,
    vsum,
)
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.sample import HOTTEST
from nanocupy.kernels.sample.cpu import BLOCK, TALLY_BYTES, SampleArgs

A = indices(SampleArgs)
BYTES = 4 * BLOCK
UNIT = 2.0**42  # of a weight, per 1.0 of probability
LN2 = log(2)


# ---- over all blocks of a row


@fn
def copy(out, x, vocabulary, blocks):
    """The row, and -inf to the end of its last block."""
    whole = vocabulary // 16
    for i in range(whole):
        vstore(out + 64 * i, vload(x + 64 * i))
    for i in range(whole, 4 * blocks):
        rest = i4(vocabulary - 16 * i)
        vstore(out + 64 * i, vfirst(rest, vload_first(x + 64 * i, rest), vsplat(f4(-inf))))


@fn
def block_max(x):
    return vmax(vmax(vload(x), vload(x + 64)), vmax(vload(x + 128), vload(x + 192)))


@fn
def block_sum(x):
    """Sum of 64 f32."""
    return vsum((vload(x) + vload(x + 64)) + (vload(x + 128) + vload(x + 192)))


@fn
def largest(x, blocks):
    """The largest, passing over NaN where it can."""
    best = vsplat(f4(-inf))
    for block in range(blocks):
        best = vmax(block_max(x + BYTES * block), best)
    return vmaxval(best)


@fn
def first_equal(x, blocks, best):
    """Index of the first `best`, which is the largest."""
    block = 0
    while block < blocks - 1 and vmaxval(block_max(x + BYTES * block)) != best:
        block += 1
    index = BLOCK * block
    while index < BLOCK * blocks - 1 and load_f32(x + 4 * index) != best:
        index += 1
    return index


@fn
def mass(p, blocks):
    total = 0.0
    for block in range(blocks):
        total += block_sum(p + BYTES * block)
    return total


@fn
def exponentials(out, x, blocks, best, temperature):
    """out = exp((x - best) / temperature)."""
    finite = min(temperature, f4(HOTTEST))  # -inf / inf would be a NaN
    shift, scale = vsplat(best), vsplat(finite)
    for i in range(4 * blocks):
        vstore(out + 64 * i, vexp((vload(x + 64 * i) - shift) / scale))


@fn
def exponential_sum(x, blocks, best):
    """Sum of exp(x - best); NaN if one is NaN or `best` is infinite."""
    shift = vsplat(best)
    total = 0.0
    for block in range(blocks):
        at = x + BYTES * block
        low = vexp(vload(at) - shift) + vexp(vload(at + 64) - shift)
        high = vexp(vload(at + 128) - shift) + vexp(vload(at + 192) - shift)
        total += vsum(low + high)
    return total


@fn
def logarithm(x):
    """Of an x >= 1, to f32 precision and a little more, the same on every machine.

    x = 2^n * m; log m = 2 atanh(t) with t = (m - 1) / (m + 1).
    """
    bits = bits_of(f4(x))
    n = (bits >> 23) - 127
    m = float_of(i4((bits & 0x7FFFFF) | 0x3F800000))
    if m > 1.5:
        m, n = 0.5 * m, n + 1
    t = (m - 1.0) / (m + 1.0)
    s = t * t
    series = 1.0 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s * (1 / 11 + s / 13)))))
    return n * LN2 + 2.0 * t * series


@fn
def logsumexp(x, blocks, best):
    total = exponential_sum(x, blocks, best)
    return f4(best + logarithm(total)) if total >= 1.0 else f4(nan)


# ---- thresholds. All are bits of a float


@fn
def below(p, limit):
    """-1 in the lanes of the vector at p that are below the limit."""
    return isar(isub(iload(p), limit), i4(31))


@fn
def cut(p, blocks, threshold):
    """0 for what is below the threshold."""
    limit = isplat(i4(threshold))
    for i in range(4 * blocks):
        at = p + 64 * i
        istore(at, isub(iload(at), iand(iload(at), below(at, limit))))


@fn
def gather(values, p, blocks, threshold):
    """Copy what is not below the threshold, in order; how many there are."""
    limit = isplat(i4(threshold))
    count = 0
    for block in range(blocks):
        at = p + BYTES * block
        low = iadd(below(at, limit), below(at + 64, limit))
        high = iadd(below(at + 128, limit), below(at + 192, limit))
        if isum(iadd(low, high)) > -BLOCK:
            for i in range(BLOCK):
                bits = load_i32(at + 4 * i)
                store_i32(values + 4 * count, bits)
                count += 1 if bits >= threshold else 0
    return count


@fn
def tally_digits(tally, values, count, shift, by_mass):
    """The weights of the values, by their digit of eight bits at `shift`."""
    for digit in range(256):
        store_i64(tally + 8 * digit, 0)
    for i in range(count):
        at = tally + 8 * ((load_i32(values + 4 * i) >> shift) & 255)
        weight = int(load_f32(values + 4 * i) * UNIT) if by_mass else 1
        store_i64(at, load_i64(at) + weight)


@fn
def pick_digit(tally, wanted):
    """The largest digit that weighs `wanted` with those above it, and what it must weigh alone.

    The smallest digit with a weight, if all together weigh less.
    """
    least = 0
    while least < 255 and load_i64(tally + 8 * least) == 0:
        least += 1
    digit = 255
    while digit > least and load_i64(tally + 8 * digit) < wanted:
        wanted -= load_i64(tally + 8 * digit)
        digit -= 1
    return digit, wanted


@fn
def with_digit(values, count, shift, digit):
    """Keep, in place, the values with this digit; how many there are."""
    kept = 0
    for i in range(count):
        bits = load_i32(values + 4 * i)
        store_i32(values + 4 * kept, bits)
        kept += 1 if (bits >> shift) & 255 == digit else 0
    return kept


@fn
def select(tally, values, count, wanted, by_mass):
    """The largest value that weighs `wanted` >= 1 with all that are not smaller."""
    shift = 24
    while shift >= 0 and count > 1:
        tally_digits(tally, values, count, shift, by_mass)
        digit, wanted = pick_digit(tally, wanted)
        count = with_digit(values, count, shift, digit)
        shift -= 8
    return load_i32(values)


@fn
def top_k_threshold(tally, values, p, blocks, top_k):
    """The k-th largest; 0 if fewer are positive.

    It is sought among those above 2^-12, which are few in most rows; if too few, above 2^-24...
    """
    halvings = 12
    count = gather(values, p, blocks, (127 - halvings) << 23)
    while count < top_k and halvings < 96:
        halvings *= 2
        count = gather(values, p, blocks, (127 - halvings) << 23)
    if count < top_k:
        count = gather(values, p, blocks, 1)
    return select(tally, values, count, top_k, False) if count >= top_k else 0


@fn
def top_p_threshold(tally, values, p, blocks, top_p):
    """The largest v such that those >= v have top_p of the mass.

    Those below (1 - top_p) * mass / count cannot matter: together they are less than 1 - top_p.
    Half of that leaves room for rounding.
    """
    total = mass(p, blocks)
    least = bits_of(f4(0.5 * (1.0 - top_p) * total / (BLOCK * blocks)))
    count = gather(values, p, blocks, max(least, 1))
    return select(tally, values, count, max(int(top_p * total * UNIT), 1), True)


@fn
def draw(p, blocks, uniform):
    """First index whose mass, with all before it, exceeds uniform * mass; else the last p > 0."""
    goal = uniform * mass(p, blocks)
    before, start, last = 0.0, 0.0, 0
    for block in range(blocks):
        weight = block_sum(p + BYTES * block)
        if weight > 0.0:
            start, last = before, block
            before += weight
            if before > goal:
                break
    token = -1
    for index in range(BLOCK * last, BLOCK * (last + 1)):
        weight = load_f32(p + 4 * index)
        if weight > 0.0:
            token = index
            start += weight
            if start > goal:
                break
    return token


# ---- a row


@fn
def ids_valid(a, row):
    for i in range(load_i32(a[A.edit_start] + 4 * row), load_i32(a[A.edit_start] + 4 * row + 4)):
        token = load_i32(a[A.edits] + 12 * i)
        if token < 0 or token >= a[A.vocabulary]:
            return False
    return load_i32(a[A.target] + 4 * row) < a[A.vocabulary]


@fn
def edit(a, row, x):
    """Apply the edits; False if one makes a NaN or +inf."""
    good = True
    for i in range(load_i32(a[A.edit_start] + 4 * row), load_i32(a[A.edit_start] + 4 * row + 4)):
        words = a[A.edits] + 12 * i
        at = x + 4 * load_i32(words)
        old, mul = load_f32(at), load_f32(words + 4)
        new = (old / mul if old > f4(0) else old * mul) + load_f32(words + 8)
        store_f32(at, new)
        good = good and new < f4(inf)
    return good


@fn
def sampled(a, row, p, blocks, best):
    """A token from the edited logits at p, which end up as what is kept of the probabilities."""
    floats = a[A.floats] + 16 * row
    top_p, min_p = load_f32(floats + 4), load_f32(floats + 8)
    top_k = load_i32(a[A.top_k] + 4 * row)
    values = p + BYTES * blocks
    tally = values + BYTES * blocks
    exponentials(p, p, blocks, best, load_f32(floats))
    if 0 < top_k < a[A.vocabulary]:
        cut(p, blocks, top_k_threshold(tally, values, p, blocks, top_k))
    if top_p < f4(1):
        cut(p, blocks, top_p_threshold(tally, values, p, blocks, top_p))
    if min_p > f4(0):
        cut(p, blocks, bits_of(min(min_p, f4(1))))
    return draw(p, blocks, load_f32(floats + 12))


@fn
def chosen(a, row, x, blocks):
    """The token of a row whose raw logits, at x, are sound."""
    if not edit(a, row, x):
        return -1
    best = largest(x, blocks)
    if best == f4(-inf):
        return -1
    if load_f32(a[A.floats] + 16 * row) > f4(0):
        return sampled(a, row, x, blocks, best)
    return first_equal(x, blocks, best)


def sample(a, thread, threads):
    """Sample this thread's share of the rows. Code 1: an edit's id or a target outside the
    vocabulary."""
    vocabulary = a[A.vocabulary]
    blocks = (vocabulary + BLOCK - 1) // BLOCK
    x = a[A.scratch] + (2 * BYTES * blocks + TALLY_BYTES) * thread
    rows = load_i64(a[A.rows])
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        if not ids_valid(a, row):
            return 1
        copy(x, a[A.logits] + 4 * vocabulary * row, vocabulary, blocks)
        lse = logsumexp(x, blocks, largest(x, blocks))
        token = load_i32(a[A.target] + 4 * row)
        if lse != lse:
            token = -1
        elif token < 0:
            token = chosen(a, row, x, blocks)
        store_i32(a[A.token] + 4 * row, token)
        store_f32(a[A.lse] + 4 * row, lse)
    return 0
