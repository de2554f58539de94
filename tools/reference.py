#!/usr/bin/env python3
"""An independent reference: the forward pass of the softmax-router families in NumPy, float64, straight from a GGUF file.

Families: qwen3moe, qwen2moe, olmoe, llama with experts. Written for reading, not for speed. It shares no code with the
engine, and reads files with the PyPI package `gguf`.

    reference.py FILE --tokens 1,2,3 [--top 5] [--greedy N] [--out LOGITS.npy] [--int8] [--kv-f16]

`--int8` gives every product with quantised weights the engine's int8 activations; what it changes is the error that
those activations cost. `--kv-f16` does the same for the KV cache.
"""
import argparse
import dataclasses
import re

import gguf
import numpy as np

# Deliberate errors that a golden model must be able to see (forward's `mutations`).
MUTATIONS = ("renorm flipped", "qk norm off", "rope kind swapped", "shared gate off", "biases off", "clamp off",
             "rope base 10000", "kv heads interleaved", "k reduced by one")


@dataclasses.dataclass
class Model:
    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_experts_used: int
    epsilon: float
    rope_base: float
    clamp_kqv: float          # 0: none
    renormalise: bool         # chosen experts' weights sum to 1
    rope_neox: bool           # pairs (i, i + n/2) instead of (2i, 2i + 1)
    tensors: dict             # name -> float64 array, shape as in the matrix product W x: [rows][columns]
    quantised: set            # names whose activations the engine turns into int8


def load(path):
    reader = gguf.GGUFReader(path)

    def field(key, default=None):
        f = reader.get_field(key)
        if f is None and default is None:
            raise KeyError(f"{path}: key {key} is missing")
        return default if f is None else f.contents()

    arch = field("general.architecture")
    if arch not in ("qwen3moe", "qwen2moe", "olmoe", "llama"):
        raise ValueError(f"{path}: architecture {arch!r} is not one of qwen3moe, qwen2moe, olmoe, llama")
    n_heads = field(f"{arch}.attention.head_count")
    width = field(f"{arch}.embedding_length")
    tensors, quantised = {}, set()
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        data = gguf.quants.dequantize(t.data, t.tensor_type)
        tensors[t.name] = data.reshape(shape).astype(np.float64)
        if t.tensor_type not in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16,
                                 gguf.GGMLQuantizationType.BF16):
            quantised.add(t.name)
    stack_split_experts(tensors, quantised)
    return Model(
        architecture=arch,
        n_layers=field(f"{arch}.block_count"),
        n_heads=n_heads,
        n_kv_heads=field(f"{arch}.attention.head_count_kv", n_heads),
        head_dim=field(f"{arch}.attention.key_length", width // n_heads),
        n_experts_used=field(f"{arch}.expert_used_count"),
        epsilon=float(field(f"{arch}.attention.layer_norm_rms_epsilon")),
        rope_base=float(field(f"{arch}.rope.freq_base", 10000.0)),
        clamp_kqv=float(field(f"{arch}.attention.clamp_kqv", 0.0)),
        renormalise=arch in ("qwen3moe", "llama"),
        rope_neox=arch != "llama",
        tensors=tensors,
        quantised=quantised,
    )


def stack_split_experts(tensors, quantised):
    """Old files: blk.N.ffn_gate.E.weight, one matrix per expert."""
    found = {}
    for name in list(tensors):
        m = re.fullmatch(r"blk\.(\d+)\.ffn_(gate|up|down)\.(\d+)\.weight", name)
        if m:
            stack = f"blk.{m[1]}.ffn_{m[2]}_exps.weight"
            found.setdefault(stack, {})[int(m[3])] = tensors.pop(name)
            if name in quantised:
                quantised.add(stack)
    for stack, experts in found.items():
        tensors[stack] = np.stack([experts[e] for e in range(len(experts))])


def quantise_to_int8(x):
    """The engine's activations: blocks of 32, d = max|x| / 127, nearest even, and back."""
    blocks = x.reshape(-1, 32)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    scale = np.where(largest == 0, 0, 127.0 / np.where(largest == 0, 1, largest))
    return (np.rint(blocks * scale) * (largest / 127.0)).reshape(x.shape)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rotate(x, base, neox):
    """x: [tokens][heads][head_dim]; token t stands at position t."""
    n_tokens, _, dim = x.shape
    angle = np.arange(n_tokens)[:, None] * base ** (-2.0 * np.arange(dim // 2) / dim)
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    out = np.empty_like(x)
    first, second = (slice(0, dim // 2), slice(dim // 2, dim)) if neox else (slice(0, dim, 2), slice(1, dim, 2))
    a, b = x[..., first], x[..., second]
    out[..., first] = a * cos - b * sin
    out[..., second] = a * sin + b * cos
    return out


def forward(model, tokens, int8=False, kv_f16=False, mutations=(), routing=None):
    """Logits of every position, [tokens][vocabulary].

    int8, kv_f16: the engine's activations where weights are quantised, and its default KV cache.
    routing: a list that receives, per layer, the margin (in router logits) between the last chosen expert and the first
    one left out, [tokens], and the ids of the chosen experts, [tokens][k].
    """
    w, eps = model.tensors, model.epsilon
    unknown = set(mutations) - set(MUTATIONS)
    if unknown:
        raise ValueError(f"unknown mutations {unknown}")

    def product(name, x, expert=None):
        matrix = w[name] if expert is None else w[name][expert]
        if int8 and name in model.quantised:
            x = quantise_to_int8(x)
        return x @ matrix.T

    def bias(name, x):
        return x + w[name] if name in w and "biases off" not in mutations else x

    def head_norm(name, x):
        """Per head where the weight is one head wide, else over the whole row."""
        if name not in w or "qk norm off" in mutations:
            return x
        if len(w[name]) == model.head_dim:
            return rms_norm(x.reshape(len(x), -1, model.head_dim), w[name], eps).reshape(x.shape)
        return rms_norm(x, w[name], eps)

    def attention(layer, x):
        b = f"blk.{layer}."
        q, k, v = (bias(f"{b}attn_{n}.bias", product(f"{b}attn_{n}.weight", x)) for n in "qkv")
        q, k = head_norm(b + "attn_q_norm.weight", q), head_norm(b + "attn_k_norm.weight", k)
        if model.clamp_kqv > 0 and "clamp off" not in mutations:
            q, k, v = (np.clip(m, -model.clamp_kqv, model.clamp_kqv) for m in (q, k, v))
        q, k, v = (m.reshape(len(x), -1, model.head_dim) for m in (q, k, v))
        base = 10000.0 if "rope base 10000" in mutations else model.rope_base
        neox = model.rope_neox != ("rope kind swapped" in mutations)
        q, k = rotate(q, base, neox), rotate(k, base, neox)
        if kv_f16:
            k, v = k.astype(np.float16).astype(k.dtype), v.astype(np.float16).astype(v.dtype)
        out = np.empty_like(q)
        future = np.triu(np.full((len(x), len(x)), -np.inf), 1)
        for h in range(model.n_heads):
            g = h // (model.n_heads // model.n_kv_heads)
            if "kv heads interleaved" in mutations:
                g = h % model.n_kv_heads
            out[:, h] = softmax(q[:, h] @ k[:, g].T / np.sqrt(model.head_dim) + future) @ v[:, g]
        return product(b + "attn_output.weight", out.reshape(len(x), -1))

    def experts(layer, x):
        b = f"blk.{layer}."
        scores = product(b + "ffn_gate_inp.weight", x)
        order = np.argsort(-scores, axis=1, kind="stable")
        n_used = model.n_experts_used - ("k reduced by one" in mutations)
        chosen = order[:, :n_used]
        weight = np.take_along_axis(softmax(scores), chosen, axis=1)
        if model.renormalise != ("renorm flipped" in mutations):
            weight = weight / weight.sum(axis=1, keepdims=True)
        if routing is not None:
            ranked = np.take_along_axis(scores, order, axis=1)
            routing.append((ranked[:, n_used - 1] - ranked[:, n_used], chosen))
        y = np.zeros_like(x)
        for rank in range(n_used):
            for e in np.unique(chosen[:, rank]):
                rows = np.nonzero(chosen[:, rank] == e)[0]
                up = silu(product(b + "ffn_gate_exps.weight", x[rows], e)) * product(b + "ffn_up_exps.weight", x[rows], e)
                y[rows] += weight[rows, rank, None] * product(b + "ffn_down_exps.weight", up, e)
        if b + "ffn_gate_shexp.weight" in w:
            up = silu(product(b + "ffn_gate_shexp.weight", x)) * product(b + "ffn_up_shexp.weight", x)
            shared = product(b + "ffn_down_shexp.weight", up)
            if "shared gate off" not in mutations:
                shared = shared / (1 + np.exp(-(x @ w[b + "ffn_gate_inp_shexp.weight"].reshape(-1, 1))))
            y += shared
        return y

    x = w["token_embd.weight"][np.asarray(tokens)]
    for layer in range(model.n_layers):
        x = x + attention(layer, rms_norm(x, w[f"blk.{layer}.attn_norm.weight"], eps))
        x = x + experts(layer, rms_norm(x, w[f"blk.{layer}.ffn_norm.weight"], eps))
    head = "output.weight" if "output.weight" in w else "token_embd.weight"
    return product(head, rms_norm(x, w["output_norm.weight"], eps))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--tokens", required=True, help="ids, separated by commas")
    parser.add_argument("--top", type=int, default=5, help="logits to print of the last position")
    parser.add_argument("--greedy", type=int, default=0, help="tokens to generate")
    parser.add_argument("--out", help="write all logits, float32 .npy")
    parser.add_argument("--int8", action="store_true", help="int8 activations where weights are quantised")
    parser.add_argument("--kv-f16", action="store_true", help="keys and values rounded to F16")
    arguments = parser.parse_args()
    model = load(arguments.file)
    tokens = [int(t) for t in arguments.tokens.split(",")]
    logits = forward(model, tokens, arguments.int8, arguments.kv_f16)
    if arguments.out:
        np.save(arguments.out, logits.astype(np.float32))
    best = np.argsort(-logits[-1], kind="stable")[: arguments.top]
    print("top", " ".join(f"{i}:{logits[-1, i]:.5f}" for i in best))
    for _ in range(arguments.greedy):
        tokens.append(int(np.argmax(forward(model, tokens, arguments.int8, arguments.kv_f16)[-1])))
    if arguments.greedy:
        print("greedy", tokens)


if __name__ == "__main__":
    main()
