#!/usr/bin/env python3
"""Makes tests/golden/quant/vectors.bin: blocks of every format and the floats that the reference reads from them.

    make_quant_vectors.py [--out tests/golden/quant/vectors.bin]

The reference is gguf from PyPI (gguf.quants), the Python package of the format; the tests need neither it nor Python.

The file is the word SLQV, then records until its end, all little-endian:
    char type[8], kind[8]     both padded with zero bytes
    u32  n_elements, n_bytes
    u8   blocks[n_bytes]
    f32  values[n_elements]   what the reference decodes; bit for bit
Kinds:
    random    random codes, scales drawn from what files hold, with denormal and negative F16 scales among them; in formats
              with a grid, every entry of it once
    encoded   the source row as the reference encodes it; only for formats that it can encode
    source    the source row itself, as F32
The source row is ordinary weights, weights with heavy tails around an offset, values of one sign, and sparse values.
"""
import argparse
import pathlib
import struct

import gguf
import numpy as np
from gguf import quants

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Byte offsets of the F16 scales in a block.
F16_SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,), "MXFP4": (),
}
# Formats with a grid, and the entries of those that bring their own.
GRID_ENTRIES = {"IQ2_XXS": 256, "IQ2_XS": 512, "IQ2_S": 1024, "IQ3_XXS": 256, "IQ3_S": 512, "IQ1_S": 2048, "IQ1_M": None}
ENCODED = ("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")
SOURCE_ELEMENTS = 2048


def random_blocks(name, rng):
    block_elements, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    n_blocks = 24 if block_elements == 32 else 4
    blocks = rng.integers(0, 256, (n_blocks, block_bytes), dtype=np.uint8)
    for offset in F16_SCALES[name]:
        scales = (0.02 * rng.standard_normal(n_blocks)).astype(np.float16)
        scales[1] = np.float16(3e-7) if offset else np.float16(-5e-6)
        blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(n_blocks, 2)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(100, 140, n_blocks)
        blocks[:6, 0] = (0, 1, 2, 127, 252, 255)
    return blocks.reshape(-1)


def set_indices(name, blocks, indices):
    """Indices into the grid, in the order of the elements: low bits and, where there are more than eight, the others."""
    fields = blocks[:, 2:66]
    low = (indices & 255).astype(np.uint8).reshape(len(blocks), -1)
    high = (indices >> 8).reshape(len(blocks), -1)
    if name == "IQ2_XXS":
        fields.reshape(-1, 8, 8)[:, :, :4] = low.reshape(-1, 8, 4)
    elif name == "IQ2_XS":
        words = fields.copy().view("<u2") & 0xfe00 | indices.reshape(len(blocks), -1)
        fields[:] = words.astype("<u2").view(np.uint8)
    elif name == "IQ2_S":
        fields[:, :32] = low
        blocks[:, 66:74] = (high.reshape(-1, 8, 4) << 2 * np.arange(4)).sum(axis=-1)
    elif name == "IQ3_XXS":
        fields[:] = low
    elif name == "IQ3_S":
        fields[:] = low
        blocks[:, 66:74] = (high.reshape(-1, 8, 8) << np.arange(8)).sum(axis=-1)
    elif name == "IQ1_S":
        fields[:, :32] = low
        words = blocks[:, 34:].copy().view("<u2") & 0xf000 | (high.reshape(-1, 8, 4) << 3 * np.arange(4)).sum(axis=-1)
        blocks[:, 34:] = words.astype("<u2").view(np.uint8)


def random_grid_blocks(name, rng):
    block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    n_entries = GRID_ENTRIES[name]
    n_blocks = 4 if n_entries is None else n_entries // (64 if name.startswith("IQ3") else 32)
    blocks = rng.integers(0, 256, (n_blocks, block_bytes), dtype=np.uint8)
    scales = (0.02 * rng.standard_normal(n_blocks)).astype(np.float16)
    scales[1] = np.float16(-5e-6)
    bits = scales.view("<u2")
    if name == "IQ1_M":
        words = blocks[:, 48:].copy().view("<u2") & 0x0fff | (bits[:, None] >> 4 * np.arange(4) & 15) << 12
        blocks[:, 48:] = words.astype("<u2").view(np.uint8)
    else:
        blocks[:, :2] = bits.view(np.uint8).reshape(n_blocks, 2)
        set_indices(name, blocks, rng.permutation(n_entries))
    return blocks.reshape(-1)


def source_row(rng):
    quarter = SOURCE_ELEMENTS // 4
    row = np.concatenate([
        0.02 * rng.standard_normal(2 * quarter),
        0.02 * rng.standard_t(4, quarter) + 0.01,
        rng.uniform(0.5, 1.5, quarter // 2),
        np.where(rng.uniform(size=quarter // 2) < 0.05, rng.standard_normal(quarter // 2), 0.0),
    ])
    return row.astype(np.float32)


def record(name, kind, blocks, values):
    payload = np.ascontiguousarray(blocks).view(np.uint8).tobytes()
    return struct.pack("<8s8sII", name.encode(), kind.encode(), values.size, len(payload)) + payload + \
        values.astype("<f4").tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "tests/golden/quant/vectors.bin")
    out = parser.parse_args().out
    rng = np.random.default_rng(20240229)
    row = source_row(rng)
    records = [record("F32", "source", row, row)]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for name in F16_SCALES:
            blocks = random_blocks(name, rng)
            values = quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
            assert not np.isnan(values).any()
            records.append(record(name, "random", blocks, values))
        for name in ENCODED:
            kind = gguf.GGMLQuantizationType[name]
            blocks = quants.quantize(row, kind)
            records.append(record(name, "encoded", blocks, quants.dequantize(blocks, kind)))
        for name in GRID_ENTRIES:
            blocks = random_grid_blocks(name, rng)
            values = quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
            assert not np.isnan(values).any()
            records.append(record(name, "random", blocks, values))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(b"SLQV" + b"".join(records))
    print(f"{out}: {len(records)} records, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
