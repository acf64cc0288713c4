"""Make the same small model in every format that is compared, out of one GGUF file.

    python benchmarks/models.py smollm2.gguf MODELS

Writes smollm2-{BF16,F16,Q8_0,Q4_0}.gguf, and beside each the folder that nanocupy reads. Weights
that were in 4 bits do not get better: the files are for speed, not for judging formats.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from nanocupy.checkpoint import convert_gguf

FILE_TYPES = {"BF16": 32, "F16": 1, "Q8_0": 7, "Q4_0": 2}  # llama.cpp's numbers for whole files


def copy(source: Path, target: Path, kind: str) -> None:
    """Write the model at `source` with matrices of type `kind`. With 4 bits the embedding has 8."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in (
            "general.architecture", "general.file_type",
        ):  # fmt: skip
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            element = field.types[-1] if array else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=element)
    writer.add_file_type(FILE_TYPES[kind])
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        embedding = tensor.name == "token_embd.weight" and kind.startswith("Q4")
        chosen = Kind.F32 if values.ndim == 1 else Kind.Q8_0 if embedding else Kind[kind]
        packed = values if chosen is Kind.F32 else gguf.quants.quantize(values, chosen)
        writer.add_tensor(tensor.name, packed, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=Path)
    parser.add_argument("models", type=Path)
    args = parser.parse_args()
    args.models.mkdir(parents=True, exist_ok=True)
    for kind in FILE_TYPES:
        target = args.models / f"smollm2-{kind}.gguf"
        copy(args.gguf, target, kind)
        convert_gguf(target, args.models / kind)


if __name__ == "__main__":
    main()
