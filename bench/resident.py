#!/usr/bin/env python3
"""How fast a model runs that fits memory, against a llama-bench on the same file: one table, from interleaved runs.

The models are random ones of the same shape in several types, written where they are missing (8 GB in all). Each repetition runs the
engine and the peer one after the other; of the peer's two ways, plain and with run-time repacking (-rtr 1), the one that was faster at first
counts. A program's first pass, in which it loads, is not counted, but for the rows that are about it. Weight bytes a second are those that a token needs,
over what the machine reads in large pages when nothing is computed, just before the decode or just after, whichever is more: a gibibyte at best, and
in a second on the whole, as a decode is timed. The best gibibyte of many short decodes over the best of reading is what the engine makes of
a moment in which nobody else uses the machine. With --peer-avx2 (the same program built for AVX2) rows without
AVX-512 are measured too.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import time

from measure import RESULTS, ROOT, append_results, print_table

LAYERS = {"Q4_K": 16, "Q8_0": 4, "Q6_K": 4, "Q4_0": 4, "IQ4_XS": 4, "MXFP4": 4}
PROMPT = "Once upon a time there was a king who"  # 16 tokens with the vocabulary of tools/make_model.py
PROMPT_TOKENS = 16
DECODED = 64
QUIET_REPETITIONS = 24
LONG, LONG_DECODED = 4096, 32


def output_of(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


class Model:
    def __init__(self, options, kind):
        self.options = options
        self.kind = kind
        self.better = {}
        self.path = options.models / f"mini-{LAYERS[kind]}-{kind}.gguf"
        if not self.path.exists():
            output_of([sys.executable, ROOT / "tools/make_model.py", self.path, "--preset", "mini", "--type", kind, "--layers", LAYERS[kind]])
        said = json.loads(output_of([options.sluice, "inspect", "-m", self.path, "--json"]))
        embedding = next(tensor["bytes"] for tensor in said["tensors"] if tensor["name"] == "token_embd.weight")
        self.token_bytes = said["dense_bytes"] - embedding + said["n_expert_layers"] * said["n_experts_used"] * said["max_expert_bytes"]
        self.tokens_of_a_gibibyte = math.ceil((1 << 30) / self.token_bytes)

    def cache(self):
        """Have the file in the page cache."""
        with self.path.open("rb", buffering=0) as file:
            while file.read(16 << 20):
                pass

    def ours(self, prompt, generate, threads, *extra, repetitions=3):
        """Tokens a second of prefill and decode: of the best repetition, since the first one loads, and the second a few experts."""
        said = json.loads(output_of([self.options.sluice, "bench", "-m", self.path, "-p", prompt, "-n", generate, "-r", repetitions, "-t",
                                     threads, "--ctx", prompt + generate + 1, "--json", *extra]))
        return said["prefill_tok_s_max"], said["decode_tok_s_max"]

    def peer(self, program, threads, *test, repetitions=2):
        """Tokens a second of the peer: of the best repetition, after one to warm up. Both of its ways are tried the first time, then the
        one that was faster."""
        rates = {}
        for repack in self.better.get((program, threads, test), (0, 1)):
            out = output_of([program, "-m", self.path, "-t", threads, "-r", repetitions, "-rtr", repack, "-o", "json", *test])
            rates[repack] = max(json.loads(out[out.index("["):out.rindex("]") + 1])[-1]["samples_ts"])
        best = max(rates, key=rates.get)
        self.better[program, threads, test] = (best,)
        return rates[best]


def say(text):
    print("  " + text, file=sys.stderr, flush=True)


def bandwidth(options, threads):
    return json.loads(output_of([options.test_kernels, "--bandwidth", threads]))


def short_rows(model, options):
    """Decode with an empty context by one and two threads, and prefill of 512 tokens by two."""
    decode, over, share, second_share, quiet_share = ({1: [], 2: []} for _ in range(5))
    prefill, prefill_over = [], []
    for i in range(options.repetitions):
        for threads in (1, 2):
            before = bandwidth(options, threads)
            _, ours = model.ours(1, DECODED + 1, threads)
            _, quiet = model.ours(1, model.tokens_of_a_gibibyte + 1, threads, repetitions=QUIET_REPETITIONS)
            after = bandwidth(options, threads)
            quiet_share[threads].append(quiet * model.token_bytes / max(before["read_bytes_per_s"], after["read_bytes_per_s"]))
            decode[threads].append(ours)
            over[threads].append(ours / model.peer(options.peer, threads, "-p", 0, "-n", DECODED))
            for shares, key in ((share, "read_bytes_per_s"), (second_share, "sustained_bytes_per_s")):
                shares[threads].append(ours * model.token_bytes / max(before[key], after[key]))
        rate, _ = model.ours(512, 2, 2)
        prefill.append(rate)
        prefill_over.append(rate / model.peer(options.peer, 2, "-p", 512, "-n", 0))
        say(f"{model.kind} {i + 1}: decode {decode[1][-1]:.1f} and {decode[2][-1]:.1f} tok/s, over the peer {over[1][-1]:.2f} and {over[2][-1]:.2f}, "
            f"of the bandwidth {share[1][-1]:.2f} and {share[2][-1]:.2f}; prefill {rate:.0f}, {prefill_over[-1]:.2f}")
    for threads, word in ((1, "1 thread"), (2, "2 threads")):
        yield f"{model.kind}: decode, {word}, tok/s", decode[threads], "", ""
        yield f"{model.kind}: decode, {word}, over the peer", over[threads], ">= 1.0", "1.15"
        yield f"{model.kind}: weight bytes of decode over read bandwidth, {word}", share[threads], ">= 0.85", "0.95"
        yield f"{model.kind}: weight bytes of decode over what is read in a second, {word}", second_share[threads], "", ""
        yield f"{model.kind}: weight bytes of the best gibibyte of decode over read bandwidth, {word}", quiet_share[threads], "", ""
    yield f"{model.kind}: prefill 512, tok/s", prefill, "", ""
    yield f"{model.kind}: prefill 512 over the peer", prefill_over, ">= 1.0", "2"


def long_rows(model, options):
    """Here loading is part of the prefill, of which it is little."""
    prefill, prefill_over, decode, decode_over = [], [], [], []
    for i in range(options.repetitions):
        ours = model.ours(LONG, LONG_DECODED + 1, 2, repetitions=1)
        prefill.append(ours[0])
        prefill_over.append(ours[0] / model.peer(options.peer, 2, "-p", LONG, "-n", 0, repetitions=1))
        decode.append(ours[1])
        decode_over.append(ours[1] / model.peer(options.peer, 2, "-p", 0, "-n", 0, "-gp", f"{LONG},{LONG_DECODED}", repetitions=1))
        say(f"{model.kind} {i + 1}: prefill {LONG} {ours[0]:.1f} tok/s, over the peer {prefill_over[-1]:.2f}; decode there {ours[1]:.1f}, {decode_over[-1]:.2f}")
    yield f"{model.kind}: prefill {LONG}, tok/s", prefill, "", ""
    yield f"{model.kind}: prefill {LONG} over the peer", prefill_over, ">= 1.0", "2"
    yield f"{model.kind}: decode at {LONG} tokens, tok/s", decode, "", ""
    yield f"{model.kind}: decode at {LONG} tokens over the peer", decode_over, ">= 1.0", "1.5"


def seconds_of(command):
    """The best of three runs: memory that one gave back the next may have at hand."""
    best = math.inf
    for _ in range(3):
        started = time.monotonic()
        output_of(command)
        best = min(best, time.monotonic() - started)
    return best


def start_rows(model, options):
    """From the start of the program to its end after one token. Memory is at hand, which a virtual machine may have to be given first."""
    ours, over = [], []
    for i in range(options.repetitions):
        model.cache()
        ours.append(seconds_of([options.sluice, "run", "-m", model.path, "-p", PROMPT, "-n", 1, "--temp", 0, "-t", 2]))
        theirs = min(seconds_of([options.peer, "-m", model.path, "-t", 2, "-p", PROMPT_TOKENS, "-n", 0, "-r", 1, "-w", 0, "-rtr", repack])
                     for repack in (0, 1))
        over.append(ours[-1] / theirs)
        say(f"{model.kind} {i + 1}: first token after {ours[-1]:.2f} s, over the peer {over[-1]:.2f}")
    yield f"{model.kind}: start to first token, file in the page cache, s", ours, "", ""
    yield f"{model.kind}: start to first token over the peer's", over, "< 1.0", "0.5"


def avx2_rows(model, options):
    decode, prefill = [], []
    for i in range(options.repetitions):
        _, ours = model.ours(1, DECODED + 1, 2, "--cpu-mask", "avx2")
        rate, _ = model.ours(512, 2, 2, "--cpu-mask", "avx2")
        decode.append(ours / model.peer(options.peer_avx2, 2, "-p", 0, "-n", DECODED))
        prefill.append(rate / model.peer(options.peer_avx2, 2, "-p", 512, "-n", 0))
        say(f"{model.kind} {i + 1}: AVX2: decode {ours:.1f}, over the peer {decode[-1]:.2f}; prefill {rate:.0f}, {prefill[-1]:.2f}")
    yield f"{model.kind}: AVX2, decode over the peer built for AVX2", decode, ">= 0.9", ""
    yield f"{model.kind}: AVX2, prefill 512 over the peer built for AVX2", prefill, ">= 0.9", ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, type=pathlib.Path, help="a llama-bench built for this machine")
    parser.add_argument("--peer-avx2", type=pathlib.Path, help="a llama-bench built for AVX2")
    parser.add_argument("--models", default=ROOT / "build", type=pathlib.Path, help="where the models are, or are written to")
    parser.add_argument("--sluice", default=ROOT / "build/sluice", type=pathlib.Path)
    parser.add_argument("--test-kernels", default=ROOT / "build/tests/kernels/test_kernels", type=pathlib.Path)
    parser.add_argument("--types", default=",".join(LAYERS), help="of the models, by comma")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", default="short,long,start,avx2", help="parts to measure, by comma")
    parser.add_argument("--results", type=pathlib.Path, help=f"append the table to this file, as {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    for program in (options.peer, options.peer_avx2):
        if program and not program.exists():
            parser.error(f"{program} is missing: expected a llama-bench")
    parts = options.only.split(",")
    rows = []
    for threads, word in ((1, "1 thread"), (2, "2 threads")):
        measured = [bandwidth(options, threads) for _ in range(options.repetitions)]
        rows.append((f"memory read bandwidth, {word}, GB/s", [one["read_bytes_per_s"] / 1e9 for one in measured], "", ""))
        rows.append((f"memory read in a second, {word}, GB/s", [one["sustained_bytes_per_s"] / 1e9 for one in measured], "", ""))
    rows.append(("meeting of 2 threads, us", [one["meeting_s"] * 1e6 for one in measured], "< 2", ""))
    for kind in options.types.split(","):
        model = Model(options, kind)
        model.cache()
        if "short" in parts:
            rows += short_rows(model, options)
        if kind == "Q4_K" and "long" in parts:
            rows += long_rows(model, options)
        if kind == "Q4_K" and "start" in parts:
            rows += start_rows(model, options)
        if options.peer_avx2 and "avx2" in parts:
            rows += avx2_rows(model, options)
    print_table(rows)
    if options.results:
        append_results("resident", rows, options.results, options.sluice)


if __name__ == "__main__":
    main()
