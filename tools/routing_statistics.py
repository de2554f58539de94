#!/usr/bin/env python3
"""What a model's routers do with random tokens, by the NumPy forward pass of reference.py: for small models.

    routing_statistics.py FILE [--tokens N] [--seed N]

Per layer and on average: the share of all choices that fall on the most popular experts, as many as one token uses; the
share of a token's experts that the token 1, 2, 4, 8 or 32 before it used too (without skew and locality: used / all);
and the share of experts used at all. The first quarter of the tokens is left out. Needs gguf from PyPI.
"""
import argparse

import numpy as np

import reference

LAGS = (1, 2, 4, 8, 32)


def statistics(chosen, n_experts):
    """chosen: [tokens][used]. One row of the table."""
    used = np.zeros((len(chosen), n_experts), bool)
    np.put_along_axis(used, chosen, True, 1)
    used = used[len(used) // 4:]
    counts = np.sort(used.sum(axis=0))[::-1]
    popular = counts[:chosen.shape[1]].sum() / counts.sum()
    reuse = [(used[lag:] & used[:-lag]).sum() / used[lag:].sum() for lag in LAGS]
    return [popular, *reuse, (counts > 0).mean()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    model = reference.load(arguments.file)
    for name, values in model.tensors.items():
        model.tensors[name] = values.astype(np.float32)
    n_vocabulary = len(model.tensors["token_embd.weight"])
    tokens = np.random.default_rng(arguments.seed).integers(0, n_vocabulary, arguments.tokens)
    routing = []
    reference.forward(model, tokens, routing=routing)
    rows = [statistics(chosen, len(model.tensors[f"blk.{layer}.ffn_gate_inp.weight"]))
            for layer, (_, chosen) in enumerate(routing)]
    print("layer    popular  " + "  ".join(f"reuse {lag:<2}" for lag in LAGS) + "  used")
    for name, row in [*enumerate(rows), ("average", np.mean(rows, axis=0))]:
        print(f"{name!s:<8} " + "  ".join(f"{100 * value:6.1f} %" for value in row))


if __name__ == "__main__":
    main()
