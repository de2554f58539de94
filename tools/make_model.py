#!/usr/bin/env python3
"""Writes models with random weights: GGUF files of any size, quickly, for tests and measurements.

    make_model.py OUT.gguf --preset tiny|mini|30b [--arch A] [--type T] [--layers N] [--experts N] ... [--seed N]
                  [--skew S --locality L] [--split N] [--dry-run]

The same arguments give the same bytes, on every machine. Nothing is held in memory but a few chunks. The file appears
under its name only when it is complete; space is checked first.

Weights have variances near 1/columns, so hidden states keep their size: the embedding's is 1, every attention and every
FFN adds about 1/layers to the variance. Router logits have a standard deviation of 1.5, logits one of 3.

Routing. Without --skew and --locality the router is plainly random. With them, hidden states have two parts that no
layer changes: 256 channels that are the same for every token (the embedding's rows share these blocks), and 256 channels
that hold an average over the last few tokens (zero in the embedding; layer 0's attention writes them, and its queries and
keys share a constant part that makes attention fall off with the distance). A router row reads each part with random
weights. Relative to what differs from token to token, whose standard deviation in router logits is 1.5:
  --skew S      an expert's popularity is a constant in its logit, normally distributed, of standard deviation 1.5 S
  --locality L  0 to 1: the share of the varying variance that comes from the average over the last tokens
docs/testing-models.md says which popularity and reuse they lead to.
"""
import argparse
import collections
import concurrent.futures
import dataclasses
import fcntl
import math
import os
import pathlib
import shutil
import struct
import sys
import time
import zlib

import numpy as np

import random_blocks
from random_blocks import Matrix, Stream, Twin, Zone

ALIGNMENT = 32
U16, U32, I32, FLOAT, BOOL, STRING, ARRAY = 2, 4, 5, 6, 7, 8, 9
SCALAR = {U16: "<H", U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?"}
NORMAL_TOKEN, CONTROL_TOKEN = 1, 3

ROUTER_DEVIATION = 1.5
LOGIT_DEVIATION = 3.0
# Channels of the parts that every layer leaves alone: whole blocks of every type.
SHARED = slice(0, 256)
RECENT = slice(256, 512)
OWN_START = 512
LEAST_STRUCTURED_WIDTH = 1024
# Layer 0's attention, when structured: the share of queries and keys that is constant, the rotation frequencies that
# part lives on (radians per token; they set how far attention reaches), and what averaging leaves of the values.
CONSTANT_SHARE = 0.9
RECENT_FREQUENCIES = (1 / 128, 1 / 4)
AVERAGED_DEVIATION = 0.4

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
CHAT_TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                 "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


@dataclasses.dataclass(frozen=True)
class Architecture:
    rope_base: float
    epsilon: float
    renormalises: bool         # the chosen experts' weights sum to 1
    pairs_are_adjacent: bool   # rotation pairs (2i, 2i + 1) instead of (i, i + n/2)
    qk_norm: str = ""          # "head", "row", or none
    has_biases: bool = False
    has_shared_expert: bool = False


ARCHITECTURES = {
    "qwen3moe": Architecture(1e6, 1e-6, True, False, qk_norm="head"),
    "qwen2moe": Architecture(1e6, 1e-6, False, False, has_biases=True, has_shared_expert=True),
    "olmoe": Architecture(1e4, 1e-5, False, False, qk_norm="row"),
    "llama": Architecture(1e6, 1e-5, True, True),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    experts_used: int
    expert_width: int
    shared_width: int          # of the shared expert, where the architecture has one
    vocabulary: int
    context: int


PRESETS = {
    "tiny": Shape(2, 256, 4, 2, 64, 8, 2, 256, 256, 600, 2048),
    # With a Q4_K embedding and a Q6_K head this vocabulary makes 3.04 GB.
    "mini": Shape(16, 2048, 32, 4, 128, 64, 8, 768, 2048, 50304, 40960),
    "30b": Shape(48, 2048, 32, 4, 128, 128, 8, 768, 2048, 151936, 40960),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes."""
    arch: str
    shape: Shape
    type: str
    expert_type: str
    embedding_type: str
    head_type: str
    seed: int
    skew: float
    locality: float

    @property
    def is_structured(self):
        return self.skew > 0 or self.locality > 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    name: str
    dims: tuple                # dims[0] is contiguous
    type: random_blocks.BlockType
    bytes: int
    chunks: object             # () -> arrays of bytes, in order


def check(plan):
    """The first thing in the plan that no model can have, as a sentence."""
    shape, arch = plan.shape, ARCHITECTURES[plan.arch]
    for field in dataclasses.fields(shape):
        if getattr(shape, field.name) < 1:
            return f"{field.name} is {getattr(shape, field.name)}: expected at least 1"
    if shape.heads % shape.kv_heads != 0:
        return f"{shape.heads} heads cannot share {shape.kv_heads} KV heads"
    if shape.head_dim % 2 != 0:
        return f"head_dim is {shape.head_dim}: dimensions are rotated in pairs"
    if arch.qk_norm != "head" and shape.heads * shape.head_dim != shape.width:
        return f"{plan.arch}: {shape.heads} heads of {shape.head_dim} are not the width, {shape.width}"
    if shape.experts_used > shape.experts:
        return f"{shape.experts_used} of {shape.experts} experts cannot be used"
    least = 256 + len(SPECIALS)
    if shape.vocabulary < least:
        return f"a vocabulary of {shape.vocabulary} tokens: expected at least {least}, the bytes and the special tokens"
    if plan.skew < 0 or not 0 <= plan.locality <= 1:
        return "expected a skew of at least 0 and a locality from 0 to 1"
    if plan.is_structured and (shape.width < LEAST_STRUCTURED_WIDTH or shape.width % 256 != 0):
        return f"--skew and --locality need a width of at least {LEAST_STRUCTURED_WIDTH}, in steps of 256"
    if plan.is_structured and not recent_rows(plan).any():
        return "--locality: no rotation of these heads turns at the right speed; use wider heads"
    return None


def recent_rows(plan):
    """Which rows of one head's queries and keys turn at RECENT_FREQUENCIES, [head_dim]."""
    arch, dim = ARCHITECTURES[plan.arch], plan.shape.head_dim
    frequency = arch.rope_base ** (-2.0 * np.arange(dim // 2) / dim)
    is_recent = (frequency >= RECENT_FREQUENCIES[0]) & (frequency <= RECENT_FREQUENCIES[1])
    return np.repeat(is_recent, 2) if arch.pairs_are_adjacent else np.concatenate([is_recent, is_recent])


class Model:
    """The tensors of a plan, in file order."""

    def __init__(self, plan):
        self.plan, self.shape, self.arch = plan, plan.shape, ARCHITECTURES[plan.arch]
        self.type = random_blocks.TYPES[plan.type]
        self.expert_type = random_blocks.TYPES[plan.expert_type]
        self.f32 = random_blocks.TYPES["F32"]
        self.branch = 1 / math.sqrt(self.shape.layers)
        shape = self.shape
        self.own_channels = shape.width - OWN_START if plan.is_structured else shape.width
        # Mean square of layer 0's input; its shared channels and its own have 1, the recent ones 0.
        self.input_square = (shape.width - 256) / shape.width if plan.is_structured else 1.0

    def key(self, name):
        return (self.plan.seed, zlib.crc32(name.encode()))

    def matrix(self, name, kind, rows, columns, gain=1.0, n_stacked=None, zones=(), twin=None):
        """Standard deviation gain / sqrt(columns)."""
        made = Matrix(self.key(name), kind, rows, columns, gain / math.sqrt(columns), n_stacked or 1, zones, twin)
        dims = (columns, rows) if n_stacked is None else (columns, rows, n_stacked)
        return Tensor(name, dims, kind, made.bytes, made.chunks)

    def vector(self, name, length, low, high):
        """F32, evenly distributed."""
        def chunks():
            raw = Stream(*self.key(name)).bytes(2 * length).view("<u2")
            yield (low + (high - low) / 65536 * raw.astype(np.float64)).astype("<f4").view(np.uint8)
        return Tensor(name, (length,), self.f32, 4 * length, chunks)

    def norm(self, name, length):
        return self.vector(name, length, 0.75, 1.25)

    def tensors(self):
        shape = self.shape
        yield self.embedding()
        yield self.norm("output_norm.weight", shape.width)
        zones = (Zone(SHARED, 0.0),) if self.plan.is_structured else ()
        yield self.matrix("output.weight", random_blocks.TYPES[self.plan.head_type], shape.vocabulary, shape.width,
                          LOGIT_DEVIATION, zones=zones)
        for layer in range(shape.layers):
            yield from self.attention(layer)
            yield from self.experts(layer)

    def embedding(self):
        name, shape = "token_embd.weight", self.shape
        kind = random_blocks.TYPES[self.plan.embedding_type]
        zones, twin = (), None
        if self.plan.is_structured:
            zones = (Zone(RECENT, 0.0),)
            row = Matrix(self.key("shared"), kind, 1, SHARED.stop, 1.0)
            twin = Twin(row, SHARED, np.zeros(shape.vocabulary, np.int64))
        return self.matrix(name, kind, shape.vocabulary, shape.width, math.sqrt(shape.width), zones=zones, twin=twin)

    def attention(self, layer):
        shape, b = self.shape, f"blk.{layer}."
        yield self.norm(b + "attn_norm.weight", shape.width)
        yield self.query_or_key(b + "attn_q.weight", layer, shape.heads)
        yield self.query_or_key(b + "attn_k.weight", layer, shape.kv_heads)
        zones = (Zone(SHARED, 0.0),) if self.plan.is_structured and layer == 0 else ()
        yield self.matrix(b + "attn_v.weight", self.type, shape.kv_heads * shape.head_dim, shape.width, zones=zones)
        if self.arch.has_biases:
            for letter, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
                yield self.vector(f"{b}attn_{letter}.bias", heads * shape.head_dim, -0.2, 0.2)
        if self.arch.qk_norm:
            for letter, heads in (("q", shape.heads), ("k", shape.kv_heads)):
                length = shape.head_dim * (heads if self.arch.qk_norm == "row" else 1)
                yield self.norm(f"{b}attn_{letter}_norm.weight", length)
        # An average over the context is a good deal smaller than the values.
        gain = 2 * self.branch
        zones = self.output_zones()
        if zones and layer == 0:
            zones += (Zone(slice(0, shape.heads * shape.head_dim), 1 / (AVERAGED_DEVIATION * gain), self.channels(RECENT)),)
        yield self.matrix(b + "attn_output.weight", self.type, shape.width, shape.heads * shape.head_dim, gain, zones=zones)

    def query_or_key(self, name, layer, heads):
        shape, plan = self.shape, self.plan
        rows = heads * shape.head_dim
        if not plan.is_structured or layer > 0:
            return self.matrix(name, self.type, rows, shape.width)
        # The constant part: one matrix for keys and queries, so that each query's constant part is its key's.
        recent = recent_rows(plan)
        deviation = math.sqrt(CONSTANT_SHARE * self.input_square / 256 * len(recent) / int(recent.sum()))
        key_rows = shape.kv_heads * shape.head_dim
        constant = Matrix(self.key("constant"), self.type, key_rows, SHARED.stop, deviation,
                          zones=(Zone(SHARED, 0.0, np.tile(~recent, shape.kv_heads)),))
        row = np.arange(rows)
        kv_head = row // shape.head_dim // (heads // shape.kv_heads)
        twin = Twin(constant, SHARED, kv_head * shape.head_dim + row % shape.head_dim)
        gain = math.sqrt((1 - CONSTANT_SHARE) * self.input_square * shape.width / self.own_channels)
        return self.matrix(name, self.type, rows, shape.width, gain, twin=twin)

    def channels(self, *parts):
        chosen = np.zeros(self.shape.width, bool)
        for part in parts:
            chosen[part] = True
        return chosen

    def output_zones(self, columns=None):
        """Nothing is added to the shared and recent channels."""
        if not self.plan.is_structured:
            return ()
        columns = self.shape.heads * self.shape.head_dim if columns is None else columns
        return (Zone(slice(0, columns), 0.0, self.channels(SHARED, RECENT)),)

    def experts(self, layer):
        shape, b = self.shape, f"blk.{layer}."
        yield self.norm(b + "ffn_norm.weight", shape.width)
        yield self.router(b + "ffn_gate_inp.weight", layer)
        # silu(gate) * up has a root mean square of 0.6; combining k experts leaves about 1 / sqrt(k) of one, and half of
        # that where the weights do not sum to 1.
        combined = (1.0 if self.arch.renormalises else 0.5) / math.sqrt(shape.experts_used)
        for name in ("gate", "up"):
            yield self.matrix(f"{b}ffn_{name}_exps.weight", self.expert_type, shape.expert_width, shape.width,
                              n_stacked=shape.experts)
        yield self.matrix(b + "ffn_down_exps.weight", self.expert_type, shape.width, shape.expert_width,
                          self.branch / (0.6 * combined), n_stacked=shape.experts, zones=self.output_zones(shape.expert_width))
        if self.arch.has_shared_expert:
            spread = math.sqrt(3 / shape.width)
            yield self.vector(b + "ffn_gate_inp_shexp.weight", shape.width, -spread, spread)
            for name in ("gate", "up"):
                yield self.matrix(f"{b}ffn_{name}_shexp.weight", self.type, shape.shared_width, shape.width)
            yield self.matrix(b + "ffn_down_shexp.weight", self.type, shape.width, shape.shared_width,
                              self.branch / (0.6 * 0.5), zones=self.output_zones(shape.shared_width))

    def router(self, name, layer):
        """Each part of the hidden state gives router logits of its own deviation; see the head of this file."""
        shape, plan = self.shape, self.plan
        if not plan.is_structured:
            return self.matrix(name, self.f32, shape.experts, shape.width, ROUTER_DEVIATION)
        own_square = 1 + (2 * layer + 1) / shape.layers
        mean_square = (256 + 256 + self.own_channels * own_square) / shape.width
        own = math.sqrt((1 - plan.locality) * mean_square / (self.own_channels * own_square) * shape.width)
        shared = plan.skew * math.sqrt(mean_square / 256 * shape.width)
        recent = math.sqrt(plan.locality * mean_square / 256 * shape.width)
        zones = (Zone(slice(OWN_START, shape.width), own), Zone(SHARED, shared), Zone(RECENT, recent))
        return self.matrix(name, self.f32, shape.experts, shape.width, ROUTER_DEVIATION, zones=zones)


def byte_characters():
    """How byte-level vocabularies write each byte, printable ones first: [256] in order of their ids."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))], [*printable, *others]


def vocabulary(size):
    """(tokens, merges): the bytes, then runs of lower-case letters, with and without a space before them, shortest first
    and frequent letters first, then the special tokens. Every run is the merge of a shorter one and its last letter."""
    characters, _ = byte_characters()
    tokens, merges = list(characters), []
    n_merges = size - len(tokens) - len(SPECIALS)
    stems = ["\u0120", *LETTERS]  # how a space is written
    while len(merges) < n_merges:
        merges += [(stem, letter) for stem in stems for letter in LETTERS][:n_merges - len(merges)]
        stems = [stem + letter for stem in stems for letter in LETTERS]
    tokens += [stem + letter for stem, letter in merges]
    return [*tokens, *SPECIALS], [" ".join(merge) for merge in merges]


def text(value):
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def array_of(kind, values):
    head = struct.pack("<IQ", kind, len(values))
    return head + (b"".join(map(text, values)) if kind == STRING else np.array(values, "<i4").tobytes())


def metadata(plan):
    """key -> (type, packed value)"""
    shape, arch = plan.shape, ARCHITECTURES[plan.arch]
    entries = {}

    def add(key, kind, value):
        entries[key] = (kind, text(value) if kind == STRING else value if kind == ARRAY else struct.pack(SCALAR[kind], value))

    def add_for_arch(key, kind, value):
        add(f"{plan.arch}.{key}", kind, value)

    add("general.architecture", STRING, plan.arch)
    add("general.type", STRING, "model")
    add("general.name", STRING, f"random {plan.arch} {shape.layers}x{shape.width} {shape.experts}x{shape.expert_width}")
    add("general.description", STRING, f"Random weights: seed {plan.seed}, skew {plan.skew:g}, locality {plan.locality:g}.")
    add("general.quantization_version", U32, 2)
    add("general.file_type", U32, random_blocks.TYPES[plan.expert_type].file_type)
    add_for_arch("context_length", U32, shape.context)
    add_for_arch("embedding_length", U32, shape.width)
    add_for_arch("block_count", U32, shape.layers)
    if plan.arch == "qwen3moe":
        add_for_arch("feed_forward_length", U32, shape.experts_used * shape.expert_width)
    else:
        add_for_arch("feed_forward_length", U32, shape.shared_width if arch.has_shared_expert else shape.expert_width)
    if plan.arch in ("qwen3moe", "qwen2moe"):
        add_for_arch("expert_feed_forward_length", U32, shape.expert_width)
    if arch.has_shared_expert:
        add_for_arch("expert_shared_feed_forward_length", U32, shape.shared_width)
    add_for_arch("attention.head_count", U32, shape.heads)
    add_for_arch("attention.head_count_kv", U32, shape.kv_heads)
    add_for_arch("attention.key_length", U32, shape.head_dim)
    add_for_arch("attention.value_length", U32, shape.head_dim)
    add_for_arch("attention.layer_norm_rms_epsilon", FLOAT, arch.epsilon)
    add_for_arch("rope.dimension_count", U32, shape.head_dim)
    add_for_arch("rope.freq_base", FLOAT, arch.rope_base)
    add_for_arch("expert_count", U32, shape.experts)
    add_for_arch("expert_used_count", U32, shape.experts_used)
    add_for_arch("vocab_size", U32, shape.vocabulary)
    tokens, merges = vocabulary(shape.vocabulary)
    ends = {token: shape.vocabulary - len(SPECIALS) + i for i, token in enumerate(SPECIALS)}
    types = [NORMAL_TOKEN] * (len(tokens) - len(SPECIALS)) + [CONTROL_TOKEN] * len(SPECIALS)
    add("tokenizer.ggml.model", STRING, "gpt2")
    add("tokenizer.ggml.pre", STRING, "qwen2")
    add("tokenizer.ggml.tokens", ARRAY, array_of(STRING, tokens))
    add("tokenizer.ggml.token_type", ARRAY, array_of(I32, types))
    add("tokenizer.ggml.merges", ARRAY, array_of(STRING, merges))
    add("tokenizer.ggml.eos_token_id", U32, ends["<|im_end|>"])
    add("tokenizer.ggml.padding_token_id", U32, ends["<|endoftext|>"])
    add("tokenizer.ggml.add_bos_token", BOOL, False)
    add("tokenizer.chat_template", STRING, CHAT_TEMPLATE)
    return entries


def padded(count):
    return (count + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def header(entries, tensors):
    out = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(entries))]
    for key, (kind, packed) in entries.items():
        out += [text(key), struct.pack("<I", kind), packed]
    offset = 0
    for tensor in tensors:
        out += [text(tensor.name), struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims),
                struct.pack("<IQ", tensor.type.id, offset)]
        offset += padded(tensor.bytes)
    whole = b"".join(out)
    return whole.ljust(padded(len(whole)), b"\0")


def split_tensors(tensors, n_parts):
    """Runs of tensors of about equal size, none empty."""
    total, parts, done = sum(t.bytes for t in tensors), [[]], 0
    for i, tensor in enumerate(tensors):
        missing = n_parts - len(parts)
        if parts[-1] and missing > 0 and (done >= total * len(parts) / n_parts or len(tensors) - i == missing):
            parts.append([])
        parts[-1].append(tensor)
        done += tensor.bytes
    return parts


def layout(plan, out, n_parts):
    """[(path, header, tensors)] of each file."""
    tensors, entries = list(Model(plan).tensors()), metadata(plan)
    if n_parts == 1:
        return [(out, header(entries, tensors), tensors)]
    if n_parts > len(tensors):
        raise ValueError(f"{len(tensors)} tensors cannot be split over {n_parts} files")
    files = []
    for number, part in enumerate(split_tensors(tensors, n_parts)):
        split = {"split.no": (U16, struct.pack("<H", number)), "split.count": (U16, struct.pack("<H", n_parts)),
                 "split.tensors.count": (I32, struct.pack("<i", len(tensors)))}
        path = out.with_name(f"{out.stem}-{number + 1:05d}-of-{n_parts:05d}.gguf")
        files.append((path, header({**(entries if number == 0 else {}), **split}, part), part))
    return files


def partial(path):
    return path.with_name(path.name + ".partial")


def write_file(path, head, tensors):
    """Write the partial file; one that a killed run left is taken over."""
    with open(partial(path), "ab", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{partial(path)}: another run is writing it") from None
        try:
            file.truncate(0)
            write_contents(file, head, tensors)
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except BaseException:
            partial(path).unlink()
            raise


def write_contents(file, head, tensors):
    """One thread makes chunks while another writes them."""
    with concurrent.futures.ThreadPoolExecutor(1) as writer:
        pending = collections.deque()

        def put(data):
            pending.append(writer.submit(write_all, file, data))
            if len(pending) > 2:
                pending.popleft().result()

        put(head)
        for tensor in tensors:
            written = 0
            for chunk in tensor.chunks():
                put(chunk)
                written += len(chunk)
            assert written == tensor.bytes
            put(bytes(padded(written) - written))
        for write in pending:
            write.result()


def write_all(file, data):
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest):]


def write_set(files):
    """All files, then their names: the first one last, so a set without it is never taken for complete."""
    complete = []
    try:
        for path, head, tensors in files:
            write_file(path, head, tensors)
            complete.append(path)
    except BaseException:
        for path in complete:
            partial(path).unlink(missing_ok=True)
        raise
    if len(files) > 1:
        files[0][0].unlink(missing_ok=True)
    for path, _, _ in reversed(files):
        os.replace(partial(path), path)
    folder = os.open(files[0][0].parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def file_bytes(files):
    return sum(len(head) + sum(padded(t.bytes) for t in tensors) for _, head, tensors in files)


def describe(plan, files):
    shape = plan.shape
    experts = sum(t.bytes for _, _, tensors in files for t in tensors if "_exps." in t.name)
    count = shape.layers * shape.experts
    return (f"{plan.arch}: {shape.layers} layers, width {shape.width}, {shape.experts} experts of {experts / count / 1e6:.3f} MB "
            f"({plan.expert_type}), {shape.experts_used} used, vocabulary {shape.vocabulary}\n"
            f"{file_bytes(files) / 1e9:.3f} GB: experts {experts / 1e9:.3f} GB, everything else "
            f"{(file_bytes(files) - experts) / 1e9:.3f} GB")


def default_head_type(kind):
    """The common mixtures of 256-wide types keep the head finer."""
    return "Q6_K" if random_blocks.TYPES[kind].elements == 256 else kind


def parse(arguments):
    types = list(random_blocks.TYPES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="qwen3moe")
    parser.add_argument("--type", type=str.upper, choices=types, default="Q4_K", help="of the matrices (Q4_K)")
    parser.add_argument("--expert-type", type=str.upper, choices=types, help="of the experts (as --type)")
    parser.add_argument("--embedding-type", type=str.upper, choices=types, help="(as --type)")
    parser.add_argument("--head-type", type=str.upper, choices=types, help="(as --type; Q6_K with 256-wide types)")
    for field in dataclasses.fields(Shape):
        parser.add_argument("--" + field.name.replace("_", "-"), type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skew", type=float, default=0.0, metavar="S")
    parser.add_argument("--locality", type=float, default=0.0, metavar="L")
    parser.add_argument("--split", type=int, default=1, metavar="N", help="write N files, -00001-of-0000N.gguf")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")
    given = parser.parse_args(arguments)
    changed = {field.name: getattr(given, field.name) for field in dataclasses.fields(Shape)
               if getattr(given, field.name) is not None}
    plan = Plan(arch=given.arch, shape=dataclasses.replace(PRESETS[given.preset], **changed), type=given.type,
                expert_type=given.expert_type or given.type, embedding_type=given.embedding_type or given.type,
                head_type=given.head_type or default_head_type(given.type), seed=given.seed, skew=given.skew,
                locality=given.locality)
    problem = check(plan)
    if problem is None and (given.seed < 0 or not 1 <= given.split <= 65535):
        problem = "expected a seed of at least 0 and 1 to 65535 files"
    if problem is not None:
        parser.error(problem)
    return given, plan


def main(arguments=None):
    given, plan = parse(arguments)
    try:
        files = layout(plan, given.out, given.split)
        print(describe(plan, files))
        if given.dry_run:
            return 0
        total, free = file_bytes(files), shutil.disk_usage(given.out.absolute().parent).free
        if total > free:
            raise OSError(f"{given.out}: {total} bytes are needed and {free} are free")
        began = time.monotonic()
        write_set(files)
        seconds = time.monotonic() - began
        print(f"{', '.join(str(path) for path, _, _ in files)}: {total} bytes in {seconds:.2f} s, {total / 1e6 / seconds:.0f} MB/s")
    except (OSError, ValueError) as problem:
        print(f"make_model: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
