"""GGUF files with NumPy alone: read one whole, change its tensor types or its layout, write it again.

Only for test models: everything is held in memory, and input is trusted.
"""
import dataclasses
import re
import struct

import numpy as np

F32, F16, Q8_0, BF16 = 0, 1, 8, 30
# type -> (elements, bytes) of a block
_BLOCK = {F32: (1, 4), F16: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), Q8_0: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), BF16: (1, 2), 39: (32, 17)}
_SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _U16, _I32 = 8, 9, 2, 5


@dataclasses.dataclass
class Tensor:
    ne: tuple    # ne[0] is the contiguous dimension
    type: int
    data: bytes


@dataclasses.dataclass
class GgufFile:
    metadata: dict  # key -> (value type, value); an array's value is (element type, list)
    tensors: dict   # name -> Tensor, in file order


class _Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def string(self):
        n = self.take("Q")
        self.at += n
        return bytes(self.data[self.at - n:self.at])

    def value(self, kind):
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            element = self.take("I")
            return element, [self.value(element) for _ in range(self.take("Q"))]
        return self.take(_SCALAR[kind])


def tensor_bytes(ne, kind):
    elements, size = _BLOCK[kind]
    count = int(np.prod(ne, dtype=np.int64))
    assert ne[0] % elements == 0
    return count // elements * size


def read(path):
    data = memoryview(open(path, "rb").read())
    cursor = _Cursor(data)
    assert bytes(data[:4]) == b"GGUF"
    cursor.at = 4
    assert cursor.take("I") == 3
    n_tensors, n_keys = cursor.take("Q"), cursor.take("Q")
    metadata = {}
    for _ in range(n_keys):
        key = cursor.string().decode()
        kind = cursor.take("I")
        metadata[key] = (kind, cursor.value(kind))
    entries = []
    for _ in range(n_tensors):
        name = cursor.string().decode()
        ne = tuple(cursor.take("Q") for _ in range(cursor.take("I")))
        entries.append((name, ne, cursor.take("I"), cursor.take("Q")))
    alignment = metadata.get("general.alignment", (4, 32))[1]
    start = _aligned(cursor.at, alignment)
    tensors = {}
    for name, ne, kind, offset in entries:
        begin = start + offset
        tensors[name] = Tensor(ne, kind, bytes(data[begin:begin + tensor_bytes(ne, kind)]))
    return GgufFile(metadata, tensors)


def _aligned(n, alignment):
    return (n + alignment - 1) // alignment * alignment


def _string(value):
    return struct.pack("<Q", len(value)) + value


def _value(kind, value):
    if kind == _STRING:
        return _string(value)
    if kind == _ARRAY:
        element, items = value
        return struct.pack("<IQ", element, len(items)) + b"".join(_value(element, v) for v in items)
    return struct.pack("<" + _SCALAR[kind], value)


def write(file, path):
    alignment = file.metadata.get("general.alignment", (4, 32))[1]
    head = [b"GGUF", struct.pack("<IQQ", 3, len(file.tensors), len(file.metadata))]
    for key, (kind, value) in file.metadata.items():
        head.append(_string(key.encode()) + struct.pack("<I", kind) + _value(kind, value))
    offset, body = 0, []
    for name, tensor in file.tensors.items():
        head.append(_string(name.encode()) + struct.pack("<I", len(tensor.ne)) + struct.pack(f"<{len(tensor.ne)}Q", *tensor.ne)
                    + struct.pack("<IQ", tensor.type, offset))
        padded = _aligned(len(tensor.data), alignment)
        body.append(tensor.data.ljust(padded, b"\0"))
        offset += padded
    head = b"".join(head)
    with open(path, "wb") as out:
        out.write(head.ljust(_aligned(len(head), alignment), b"\0"))
        out.writelines(body)


def encode_q8_0(x):
    """Blocks of 32: d = max|x| / 127 stored as F16, q = x / d rounded half away from zero."""
    blocks = x.reshape(-1, 32).astype(np.float32)
    d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(d == 0, np.float32(0), np.float32(1) / d)
    scaled = blocks * inverse
    q = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    out = np.empty((len(blocks), 34), np.uint8)
    out[:, :2] = d.astype("<f2").view(np.uint8)
    out[:, 2:] = q.view(np.uint8)
    return out.tobytes()


def q8_0_scales(data):
    return np.frombuffer(data, np.uint8).reshape(-1, 34)[:, :2].copy().view("<f2")[:, 0].astype(np.float64)


def decode_q8_0(data):
    q = np.frombuffer(data, np.uint8).reshape(-1, 34)[:, 2:].copy().view(np.int8).astype(np.float64)
    return (q * q8_0_scales(data)[:, None]).reshape(-1)


def is_converted(name, tensor):
    """Matrices, but the router: norms, biases and routers stay F32."""
    return len(tensor.ne) > 1 and "ffn_gate_inp" not in name


def with_type(file, kind):
    """F32 matrices as F16 or Q8_0; rows that are no whole number of Q8_0 blocks become F16."""
    tensors = {}
    for name, tensor in file.tensors.items():
        if not is_converted(name, tensor):
            tensors[name] = tensor
            continue
        assert tensor.type == F32
        x = np.frombuffer(tensor.data, "<f4")
        if kind == Q8_0 and tensor.ne[0] % 32 == 0:
            tensors[name] = Tensor(tensor.ne, Q8_0, encode_q8_0(x))
        else:
            tensors[name] = Tensor(tensor.ne, F16, x.astype("<f2").tobytes())
    return GgufFile(file.metadata, tensors)


def with_split_experts(file):
    """The layout of the first Mixtral files: blk.N.ffn_gate.E.weight, one matrix per expert."""
    tensors = {}
    for name, tensor in file.tensors.items():
        m = re.fullmatch(r"(blk\.\d+\.ffn_(?:gate|up|down))_exps\.weight", name)
        if not m:
            tensors[name] = tensor
            continue
        n_experts = tensor.ne[2]
        size = len(tensor.data) // n_experts
        for e in range(n_experts):
            tensors[f"{m[1]}.{e}.weight"] = Tensor(tensor.ne[:2], tensor.type, tensor.data[e * size:(e + 1) * size])
    return GgufFile(file.metadata, tensors)


def with_key(file, key, kind, value):
    return GgufFile({**file.metadata, key: (kind, value)}, file.tensors)


def write_parts(file, stem, n_parts):
    """Split over files stem-00001-of-0000N.gguf, every layer's tensors spread over the parts; the paths, in order."""
    paths = []
    for part in range(n_parts):
        metadata = dict(file.metadata) if part == 0 else {}
        metadata["split.no"] = (_U16, part)
        metadata["split.count"] = (_U16, n_parts)
        metadata["split.tensors.count"] = (_I32, len(file.tensors))
        tensors = {name: t for i, (name, t) in enumerate(file.tensors.items()) if i % n_parts == part}
        paths.append(f"{stem}-{part + 1:05d}-of-{n_parts:05d}.gguf")
        write(GgufFile(metadata, tensors), paths[-1])
    return paths
