"""Random weights written straight as blocks of any type, without quantising floats.

A block's codes are raw random bytes. Its header (scales and minima) is one of 256 that were made for the wished standard
deviation; one of the random bytes that it replaces picks it. So making weights costs little more than making random bytes.

Every step is exact or correctly rounded (integers, +, *, /, sqrt), and the raw stream of SFC64 is fixed by NumPy: the
same seed gives the same bytes on every machine.
"""
import dataclasses
import math
from typing import Callable

import numpy as np

IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])
N_HEADERS = 256


class Stream:
    """Random bytes; `key` (integers) names the stream."""

    def __init__(self, *key):
        self.source = np.random.SFC64(np.random.SeedSequence(key))

    def bytes(self, count):
        return self.source.random_raw((count + 7) // 8).astype("<u8", copy=False).view(np.uint8)[:count]

    def integers(self, low, high, shape):
        """Whole numbers low..high, near enough to uniform for ranges far below 2^32."""
        count = math.prod(shape)
        return (low + (self.bytes(4 * count).view("<u4").astype(np.int64) * (high - low + 1) >> 32)).reshape(shape)


@dataclasses.dataclass(frozen=True)
class BlockType:
    name: str
    id: int                    # in GGUF
    file_type: int             # general.file_type of a file that is mostly of this type
    elements: int
    bytes: int
    fields: tuple              # (first byte, bytes) of what the table replaces; the first one starts with the index
    n_entries: int             # of the table: 256, or 65536 with two bytes of index
    make_table: Callable       # (standard deviation, Stream) -> one array [n_entries][bytes] per field
    codes_are_int8: bool = False  # -128 is left out

    def table(self, deviation, stream):
        return [entries.reshape(self.n_entries, -1).view(f"V{n}").ravel()
                for (_, n), entries in zip(self.fields, self.make_table(deviation, stream))]

    def index(self, blocks):
        """The table's index of each block: blocks [...][bytes] -> [...]."""
        at = self.fields[0][0]
        if self.n_entries == 256:
            return blocks[..., at].copy()
        return blocks[..., at:at + 2].copy().view("<u2")[..., 0]

    def write(self, blocks, table, index):
        for (at, n), entries in zip(self.fields, table):
            blocks[..., at:at + n].view(f"V{n}")[..., 0] = entries[index]

    def row_bytes(self, columns):
        if columns % self.elements != 0:
            raise ValueError(f"rows of {columns} weights are no whole blocks of {self.elements}, which {self.name} needs")
        return columns // self.elements * self.bytes


def _half(values):
    return values.astype("<f2").reshape(-1, 1).view(np.uint8)


def _scales(deviation, mean_square, stream, signed=False):
    """One `d` per header, 0.8 to 1.2 of what makes weights of this deviation, where those of d = 1 have this mean square.
    Formats whose codes are not centred on zero take both signs, as their encoders do."""
    jitter = stream.integers(205, 307, (N_HEADERS,))
    sign = 1 - np.arange(N_HEADERS) % 2 * 2 if signed else 1
    jitter_square = int((jitter * jitter).sum()) / (N_HEADERS * 65536)
    return deviation / math.sqrt(mean_square * jitter_square) * sign * (jitter / 256)


def _code_squares(n_codes, zero):
    """Mean square of codes 0..n_codes-1 around `zero`, which may be a half."""
    return sum((2 * q - 2 * zero) ** 2 for q in range(n_codes)) / (4 * n_codes)


def _symmetric(n_codes, zero):
    def make(deviation, stream):
        return [_half(_scales(deviation, _code_squares(n_codes, zero), stream, signed=True))]
    return make


def _with_minimum(n_codes):
    def make(deviation, stream):
        centre = (n_codes - 1) / 2
        d = _scales(deviation, _code_squares(n_codes, centre), stream)
        # The minimum is off by up to a tenth of a code, to both sides.
        off = stream.integers(-26, 26, (N_HEADERS,)) / 256
        return [np.hstack([_half(d), _half(-d * (centre + off))])]
    return make


def _table_codes(values):
    def make(deviation, stream):
        return [_half(_scales(deviation, int((values * values).sum()) / len(values), stream, signed=True))]
    return make


def _make_q8_0(deviation, stream):
    # 0x80 became -127, so that code is twice as likely.
    mean_square = (2 * sum(q * q for q in range(1, 128)) + 127 * 127) / 256
    return [_half(_scales(deviation, mean_square, stream))]


def _pairs_of_scales(stream, n_groups, largest, spread):
    """Scales and minima of the K formats, near each other so that weights are centred."""
    s = stream.integers((largest + 1) // 3, largest, (N_HEADERS, n_groups))
    m = np.clip(s + stream.integers(-spread, spread, s.shape), 0, largest)
    return s, m


def _group_square(n_codes, s, m):
    """Mean square of s q - centre m over all headers, groups and codes."""
    q = np.arange(n_codes)
    values = 2 * s[..., None] * q - (n_codes - 1) * m[..., None]
    return int((values * values).sum()) / (4 * values.size)


def _six_bits(s, m):
    """8 six-bit scales and minima in 12 bytes."""
    return np.concatenate([s[:, :4] | s[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6,
                           s[:, 4:] & 15 | (m[:, 4:] & 15) << 4], axis=1).astype(np.uint8)


def _q4_or_q5_k(n_codes):
    def make(deviation, stream):
        s, m = _pairs_of_scales(stream, 8, 63, 2)
        d = _scales(deviation, _group_square(n_codes, s, m), stream)
        return [np.hstack([_half(d), _half(d * ((n_codes - 1) / 2)), _six_bits(s, m)])]
    return make


def _make_q2_k(deviation, stream):
    s, m = _pairs_of_scales(stream, 16, 15, 1)
    d = _scales(deviation, _group_square(4, s, m), stream)
    return [(s | m << 4).astype(np.uint8), np.hstack([_half(d), _half(d * 1.5)])]


def _signed_scales(stream, n_groups, largest):
    """Group scales of both signs, none near zero."""
    s = stream.integers((largest + 1) // 3, largest, (N_HEADERS, n_groups))
    return s * (stream.integers(0, 1, s.shape) * 2 - 1)


def _scale_square(s):
    return int((s * s).sum()) / s.size


def _make_q3_k(deviation, stream):
    s = _signed_scales(stream, 16, 31)
    d = _scales(deviation, _scale_square(s) * _code_squares(8, 4), stream)
    raw = s + 32
    high = sum((raw[:, 4 * i:4 * i + 4] >> 4) << 2 * i for i in range(4))
    low = raw[:, :8] & 15 | (raw[:, 8:] & 15) << 4
    return [np.hstack([np.hstack([low, high]).astype(np.uint8), _half(d)])]


def _make_q6_k(deviation, stream):
    s = _signed_scales(stream, 16, 127)
    d = _scales(deviation, _scale_square(s) * _code_squares(64, 32), stream)
    return [np.hstack([s.astype(np.int8).view(np.uint8), _half(d)])]


def _make_iq4_xs(deviation, stream):
    s = _signed_scales(stream, 8, 31)
    d = _scales(deviation, _scale_square(s) * int((IQ4_VALUES * IQ4_VALUES).sum()) / 16, stream)
    raw = s + 32
    high = sum((raw[:, i] >> 4) << 2 * i for i in range(8)).astype("<u2").reshape(-1, 1).view(np.uint8)
    low = (raw[:, 0::2] & 15 | (raw[:, 1::2] & 15) << 4).astype(np.uint8)
    return [np.hstack([_half(d), high, low])]


# Mean square of the elements of a grid, where every entry is as likely as any other. IQ1 in eighths, shifts and all.
GRID_SQUARES = {"IQ2_XXS": 1094513 / 2048, "IQ2_XS": 2402206 / 4096, "IQ2_S": 4889327 / 8192, "IQ3_XXS": 974480 / 1024,
                "IQ3_S": 118112 / 2048, "IQ1": (639184 + 639664) / 2 / 16384}


def _grid_header(grid, unit, n_groups, largest):
    """`d` and stored scales for weights d unit (2 s + 1) times an element of the grid."""
    def make(deviation, stream):
        s = stream.integers((largest + 1) // 2, largest, (N_HEADERS, n_groups))
        return _scales(deviation, GRID_SQUARES[grid] * unit * unit * _scale_square(2 * s + 1), stream), s
    return make


def _low_then_high(s):
    return (s[:, 0::2] | s[:, 1::2] << 4).astype(np.uint8)


def _grid_with_nibbles(grid, unit, n_groups):
    header = _grid_header(grid, unit, n_groups, 15)

    def make(deviation, stream):
        d, s = header(deviation, stream)
        return [_half(d), _low_then_high(s)]
    return make


def _grid_with_top_bytes(grid, unit, largest, n_signs):
    """The scales are bits of the last byte of a word; the other bits of that byte are random too. Above the scale are
    `n_signs` bits."""
    header = _grid_header(grid, unit, 8, largest)
    n_bits = largest.bit_length()

    def make(deviation, stream):
        d, s = header(deviation, stream)
        below = stream.integers(0, (1 << 8 - n_bits - n_signs) - 1, s.shape)
        above = stream.integers(0, (1 << n_signs) - 1, s.shape)
        tops = (above << 8 - n_signs | s << 8 - n_bits - n_signs | below).astype(np.uint8)
        return [_half(d), *tops.T]
    return make


def _make_iq1_m(deviation, stream):
    d, s = _grid_header("IQ1", 1 / 8, 16, 7)(deviation, stream)
    bits = d.astype("<f2").view("<u2").astype(np.int64).reshape(-1, 1) >> 4 * np.arange(4) & 15
    words = (s.reshape(-1, 4, 4) << 3 * np.arange(4)).sum(axis=-1) | bits << 12
    return [words.astype("<u2").view(np.uint8)]


def _make_mxfp4(deviation, stream):
    """Two neighbouring powers of two, in the proportion that gives the mean square."""
    if deviation == 0:
        return [np.zeros((N_HEADERS, 1), np.uint8)]
    square = deviation * deviation / (int((E2M1_DOUBLED * E2M1_DOUBLED).sum()) / (4 * 16))
    exponent = (math.frexp(square)[1] - 1) // 2  # 4^exponent <= square < 4^(exponent + 1)
    n_greater = round(N_HEADERS * (square / 4.0 ** exponent - 1) / 3)
    return [(127 + exponent + (np.arange(N_HEADERS) < n_greater)).astype(np.uint8).reshape(-1, 1)]


def _uniform(deviation):
    """65536 evenly spaced values."""
    return (np.arange(-65535, 65536, 2) / 65536 * (deviation * math.sqrt(3))).astype("<f4")


def _make_bf16(deviation, _):
    bits = _uniform(deviation).view("<u4")
    return [((bits + 0x8000) >> 16).astype("<u2").reshape(-1, 1).view(np.uint8)]


def _make_f16(deviation, _):
    return [_half(_uniform(deviation))]


def _make_f32(deviation, _):
    return [_uniform(deviation).reshape(-1, 1).view(np.uint8)]


TYPES = {t.name: t for t in (
    BlockType("F32", 0, 0, 1, 4, ((0, 4),), 65536, _make_f32),
    BlockType("F16", 1, 1, 1, 2, ((0, 2),), 65536, _make_f16),
    BlockType("BF16", 30, 32, 1, 2, ((0, 2),), 65536, _make_bf16),
    BlockType("Q4_0", 2, 2, 32, 18, ((0, 2),), 256, _symmetric(16, 8)),
    BlockType("Q4_1", 3, 3, 32, 20, ((0, 4),), 256, _with_minimum(16)),
    BlockType("Q5_0", 6, 8, 32, 22, ((0, 2),), 256, _symmetric(32, 16)),
    BlockType("Q5_1", 7, 9, 32, 24, ((0, 4),), 256, _with_minimum(32)),
    BlockType("Q8_0", 8, 7, 32, 34, ((0, 2),), 256, _make_q8_0, codes_are_int8=True),
    BlockType("Q2_K", 10, 10, 256, 84, ((0, 16), (80, 4)), 256, _make_q2_k),
    BlockType("Q3_K", 11, 12, 256, 110, ((96, 14),), 256, _make_q3_k),
    BlockType("Q4_K", 12, 15, 256, 144, ((0, 16),), 256, _q4_or_q5_k(16)),
    BlockType("Q5_K", 13, 17, 256, 176, ((0, 16),), 256, _q4_or_q5_k(32)),
    BlockType("Q6_K", 14, 18, 256, 210, ((192, 18),), 256, _make_q6_k),
    BlockType("IQ3_S", 21, 26, 256, 110, ((0, 2), (106, 4)), 256, _grid_with_nibbles("IQ3_S", 1, 8)),
    BlockType("IQ3_XXS", 18, 23, 256, 98, ((0, 2), *((69 + 4 * i, 1) for i in range(8))), 256,
              _grid_with_top_bytes("IQ3_XXS", 1 / 4, 15, 0)),
    BlockType("IQ2_S", 22, 28, 256, 82, ((0, 2), (74, 8)), 256, _grid_with_nibbles("IQ2_S", 1 / 8, 16)),
    BlockType("IQ2_XS", 17, 20, 256, 74, ((0, 2), (66, 8)), 256, _grid_with_nibbles("IQ2_XS", 1 / 8, 16)),
    BlockType("IQ2_XXS", 16, 19, 256, 66, ((0, 2), *((9 + 8 * i, 1) for i in range(8))), 256,
              _grid_with_top_bytes("IQ2_XXS", 1 / 8, 15, 0)),
    BlockType("IQ1_M", 29, 31, 256, 56, ((48, 8),), 256, _make_iq1_m),
    BlockType("IQ1_S", 19, 24, 256, 50, ((0, 2), *((35 + 2 * i, 1) for i in range(8))), 256,
              _grid_with_top_bytes("IQ1", 1 / 8, 7, 1)),
    BlockType("IQ4_NL", 20, 25, 32, 18, ((0, 2),), 256, _table_codes(IQ4_VALUES)),
    BlockType("IQ4_XS", 23, 30, 256, 136, ((0, 8),), 256, _make_iq4_xs),
    BlockType("MXFP4", 39, 38, 32, 17, ((0, 1),), 256, _make_mxfp4),
)}


@dataclasses.dataclass(frozen=True)
class Zone:
    """A part of a matrix whose deviation is `gain` times that of the rest."""
    columns: slice             # whole blocks
    gain: float
    rows: np.ndarray = None    # bool, [rows]; None: all


@dataclasses.dataclass(frozen=True)
class Twin:
    """The blocks in `columns` of row r are those of row rows[r] of a matrix of its own."""
    matrix: "Matrix"
    columns: slice
    rows: np.ndarray           # [rows]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Random weights: `n_stacked` matrices one behind the other. `key` names their stream."""
    key: tuple
    type: BlockType
    rows: int
    columns: int
    deviation: float
    n_stacked: int = 1
    zones: tuple = ()
    twin: Twin = None

    @property
    def bytes(self):
        return self.type.row_bytes(self.columns) * self.rows * self.n_stacked

    def _blocks(self, columns):
        return slice(columns.start // self.type.elements, columns.stop // self.type.elements)

    def chunks(self, chunk_bytes=1 << 20):
        """The bytes in order, as arrays of whole rows. The same for every chunk size that is a multiple of 8 rows."""
        kind, row_bytes = self.type, self.type.row_bytes(self.columns)
        stream, headers = Stream(*self.key, 1), Stream(*self.key, 2)
        plain = kind.table(self.deviation, headers)
        zones = [(zone, kind.table(self.deviation * zone.gain, headers)) for zone in self.zones]
        twin = None if self.twin is None else np.concatenate(list(self.twin.matrix.chunks())).reshape(
            self.twin.matrix.rows, -1, kind.bytes)
        n_rows = self.rows * self.n_stacked
        step = max(1, chunk_bytes // row_bytes // 8) * 8
        for first in range(0, n_rows, step):
            count = min(step, n_rows - first)
            data = stream.bytes(count * row_bytes)
            if kind.codes_are_int8:
                codes = data.view(np.int8)
                np.maximum(codes, -127, out=codes)
            blocks = data.reshape(count, -1, kind.bytes)
            index = kind.index(blocks)
            kind.write(blocks, plain, index)
            if zones or twin is not None:
                self._overwrite(blocks, index, zones, twin, np.arange(first, first + count) % self.rows)
            yield data

    def _overwrite(self, blocks, index, zones, twin, rows):
        for zone, table in zones:
            columns = self._blocks(zone.columns)
            if zone.rows is None:
                self.type.write(blocks[:, columns], table, index[:, columns])
                continue
            chosen = np.nonzero(zone.rows[rows])[0]
            part = blocks[chosen, columns]
            self.type.write(part, table, index[chosen, columns])
            blocks[chosen, columns] = part
        if twin is not None:
            blocks[:, self._blocks(self.twin.columns)] = twin[self.twin.rows[rows]]
