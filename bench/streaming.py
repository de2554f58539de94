#!/usr/bin/env python3
"""How fast a model bigger than memory runs: one table, from paired and interleaved runs in a memory cgroup.

Each row of the table is a ratio with its limit and its aim, as the median, the lowest and the highest of the repetitions. The disk
is measured beside every run with fio, at the size and depth of the engine's own reads, because shared disks drift: as fio comes,
which is what bounds are taken from, and with its buffers in large pages, for the rows that say so. Caches are dropped before every
run, and the memory that it will use is touched once, because a virtual machine may have to ask its host for it. Every run must come to the same logits. Needs root (cgroups, caches) and fio. With --peer (the path of a llama-bench) the rows
against it are measured too; without it they are left out.
"""
import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support import cgroup  # noqa: E402  (the path above finds it)

from measure import RESULTS, append_results, print_table, touch_memory  # noqa: E402

MIB = 1 << 20
PROMPT = "Once upon a time there was a king who"  # 16 tokens with the vocabulary of tools/make_model.py: checked below
PROMPT_TOKENS = 16
CONTEXT = 1024
TOUCHED_BYTES = 3 << 30  # three times what a run takes: with less, the kernel hands out other pages first


@contextlib.contextmanager
def huge_pages(count):
    """Pages for fio's buffers when it is to read as cheaply as the engine."""
    setting = pathlib.Path("/proc/sys/vm/nr_hugepages")
    before = setting.read_text()
    setting.write_text(str(int(before) + count))
    try:
        yield int(setting.read_text()) >= int(before) + count
    finally:
        setting.write_text(before)


def run_in_cgroup(limit, command):
    """Run a command in a fresh cgroup (limit None: in none), cold. Returns its output, the cgroup's peak and the seconds."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    if limit is not None:
        touch_memory(TOUCHED_BYTES)
    with contextlib.ExitStack() as stack:
        group = None if limit is None else stack.enter_context(cgroup.MemoryCgroup(limit))

        def enter():
            if group is not None:
                group.procs.write_text(str(os.getpid()))

        started = time.monotonic()
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, preexec_fn=enter, check=False)
        seconds = time.monotonic() - started
        peak = None if group is None else group.peak_bytes()
        if group is not None and group.oom_kills():
            raise RuntimeError(f"killed for memory in {limit} bytes: {' '.join(map(str, command))}")
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout, peak, seconds


class Bench:
    def __init__(self, options):
        self.options = options
        self.limit = options.mem * MIB
        self.hashes = {}
        out, _, _ = run_in_cgroup(None, [options.sluice, "inspect", "-m", options.model, "--ctx", CONTEXT, "--json"])
        said = json.loads(out)
        self.plan = said["memory_plan"]
        self.shape = said["n_expert_layers"], said["n_experts"], said["n_experts_used"]
        self.dense_bytes, self.expert_bytes = said["dense_bytes"], said["expert_bytes"]
        self.one_expert_bytes = said["max_expert_bytes"]

    def sluice(self, prompt, generate, budget=None, *extra, repetitions=1, limit=None, threads=None):
        out, peak, _ = run_in_cgroup(limit, [
            self.options.sluice, "bench", "-m", self.options.model, "-p", prompt, "-n", generate, "-r", repetitions, "-t",
            threads or self.options.threads, "--ctx", CONTEXT, "--json", *(["--mem", budget] if budget else []), *self.options.extra, *extra])
        said = json.loads(out)
        said["cgroup_peak"] = peak
        said["missed_bytes"] = self.missed_bytes(said)
        first = self.hashes.setdefault((prompt, generate), said["logits_hash"])
        if said["logits_hash"] != first:
            raise RuntimeError(f"{prompt} and {generate} tokens in {budget} bytes {' '.join(map(str, extra))}: other logits than before")
        return said

    def missed_bytes(self, said):
        """Of the experts that were not in memory when their layer asked for them, or came only because they were read ahead."""
        return (said["expert_misses"] + said["prefetch_used"] - said["prefetch_late"]) * self.one_expert_bytes

    def peer(self, prompt, generate):
        out, _, _ = run_in_cgroup(self.limit, [
            self.options.peer, "-m", self.options.model, "-p", prompt, "-n", generate, "-r", 1, "-t", self.options.threads,
            "-o", "json"])
        return json.loads(out[out.index("["):out.rindex("]") + 1])[0]["avg_ts"]

    def disk_bytes_per_s(self, large_pages):
        """Random reads of an expert matrix's size, about as many in flight as a layer's misses."""
        block = self.one_expert_bytes // 3 // 4096 * 4096
        out, _, _ = run_in_cgroup(None, [
            "fio", "--name=experts", f"--filename={self.options.model}", "--readonly", "--rw=randread", f"--bs={block}",
            "--iodepth=16", "--direct=1", "--ioengine=io_uring", "--time_based", f"--runtime={self.options.fio_seconds}",
            *(["--iomem=shmhuge"] if large_pages else []), "--output-format=json"])
        return json.loads(out[out.index("{"):])["jobs"][0]["read"]["bw_bytes"]

    def disks(self):
        return [self.disk_bytes_per_s(large_pages) for large_pages in (False, self.options.fio_huge)]

    def between_disks(self, measure):
        """A measurement with the disk's speeds before and after it: as fio comes, and with large pages."""
        before = self.disks()
        measured = measure()
        return (measured, *((x + y) / 2 for x, y in zip(before, self.disks())))

    def first_token(self):
        """From the start of the program to its end after one token of a cold prompt: seconds, and the bytes that it had to read."""
        with tempfile.TemporaryDirectory() as folder:
            stats = pathlib.Path(folder) / "stats.json"
            _, _, seconds = run_in_cgroup(self.limit, [
                self.options.sluice, "run", "-m", self.options.model, "-p", PROMPT, "-n", 1, "--temp", 0, "--ctx", CONTEXT, "--mem",
                self.limit, "-t", self.options.threads, "--stats", stats, *self.options.extra])
            said = json.loads(stats.read_text())
            if said["prompt_tokens"] != PROMPT_TOKENS:
                raise RuntimeError(f"the prompt has {said['prompt_tokens']} tokens in this vocabulary, not {PROMPT_TOKENS}")
            return seconds, self.dense_bytes + self.missed_bytes(said)


def decode_rows(bench, resident):
    """Decode figures; what belongs to the decoded tokens alone is the difference to a run that stops at the first."""
    tokens = bench.options.tokens
    before = bench.sluice(PROMPT_TOKENS, 1, bench.limit, limit=bench.limit)
    ours, over_peer, over_bound, over_large, over_bytes, peaks, rates, disks, larges = [], [], [], [], [], [], [], [], []
    for i in range(bench.options.repetitions):
        said, disk, large = bench.between_disks(lambda: bench.sluice(PROMPT_TOKENS, tokens + 1, bench.limit, limit=bench.limit))
        missed = (said["missed_bytes"] - before["missed_bytes"]) / tokens
        ours.append(said["decode_tok_s"])
        disks.append(disk / 1e9)
        larges.append(large / 1e9)
        rates.append(said["read_gb_s"])
        over_bound.append(1 / said["decode_tok_s"] / max(1 / resident["decode_tok_s"], missed / disk))
        over_large.append(1 / said["decode_tok_s"] / max(1 / resident["decode_tok_s"], missed / large))
        over_bytes.append(said["bytes_read"] / said["missed_bytes"])
        peaks.append(said["cgroup_peak"] / bench.limit)
        if bench.options.peer:
            over_peer.append(said["decode_tok_s"] / bench.peer(0, max(4, tokens // 8)))
        print(f"  decode {i + 1}: {ours[-1]:.2f} tok/s, {missed / MIB:.0f} MiB missed a token, disk {disk / 1e9:.2f} GB/s "
              f"({large / 1e9:.2f} with large pages), over the bound {over_bound[-1]:.3f} ({over_large[-1]:.3f})" + (f", over the peer {over_peer[-1]:.1f}" if over_peer else ""), file=sys.stderr)
    yield "decode in the cgroup, tok/s", ours, "", ""
    if over_peer:
        yield "decode over the peer in the same cgroup", over_peer, ">= 10", "20"
    yield "disk by fio as it comes, GB/s", disks, "", ""
    yield "disk by fio with large pages, GB/s", larges, "", ""
    yield "the engine's reads while any is in flight, GB/s", rates, "", ""
    yield "token time over max(resident compute, missed bytes / disk)", over_bound, "<= 1.25", "1.05"
    yield "the same, disk by fio with large pages", over_large, "", ""
    yield "bytes read over missed experts' bytes", over_bytes, "<= 1.02", "1.005"
    yield "kernel's peak of the cgroup over the budget", peaks, "<= 1.00", "1.00"


def predictor_rows(bench):
    """What each predictor brings: its tokens per second over those without one, in pairs."""
    tokens = bench.options.tokens
    kinds = ("previous", "router", "auto")
    ratios = {kind: [] for kind in kinds}
    for _ in range(bench.options.repetitions):
        plain = bench.sluice(PROMPT_TOKENS, tokens + 1, bench.limit, "--prefetch", "none", limit=bench.limit)
        for kind in kinds:
            said = bench.sluice(PROMPT_TOKENS, tokens + 1, bench.limit, "--prefetch", kind, limit=bench.limit)
            ratios[kind].append(said["decode_tok_s"] / plain["decode_tok_s"])
    for kind in kinds:
        yield f"decode with --prefetch {kind} over none", ratios[kind], "", ""


def prefill_rows(bench, resident):
    ours, over_bound, over_peer, first, first_large = [], [], [], [], []
    for i in range(bench.options.repetitions):
        said, disk, _ = bench.between_disks(lambda: bench.sluice(512, 1, bench.limit, limit=bench.limit))
        ours.append(said["prefill_tok_s"])
        over_bound.append(512 / said["prefill_tok_s"] / (512 / resident["prefill_tok_s"] + bench.expert_bytes / disk))
        if bench.options.peer:
            over_peer.append(said["prefill_tok_s"] / bench.peer(512, 0))
        (seconds, needed), disk, large = bench.between_disks(bench.first_token)
        first.append(seconds / (needed / disk))
        first_large.append(seconds / (needed / large))
        print(f"  prefill {i + 1}: {ours[-1]:.1f} tok/s, over the bound {over_bound[-1]:.3f}; first token {seconds:.2f} s, over the "
              f"bound {first[-1]:.3f}" + (f", over the peer {over_peer[-1]:.2f}" if over_peer else ""), file=sys.stderr)
    yield "prefill 512 in the cgroup, tok/s", ours, "", ""
    yield "prefill 512 over (resident time + one pass of the experts)", over_bound, "<= 1.3", "1.1"
    if over_peer:
        yield "prefill 512 over the peer in the same cgroup", over_peer, ">= 1.0", "1.5"
    yield "first token, cold, over (dense + missed bytes) / disk", first, "<= 1.5", "1.15"
    yield "the same of the first token, disk by fio with large pages", first_large, "", ""


def budget_row(bench):
    """At 20 budgets, each in a cgroup of that size, with every kind of reading, policy, number of threads and chunk in turn."""
    floor, resident = bench.plan["floor_bytes"], bench.plan["resident_bytes"]
    predictors = ("auto", "none", "previous")
    policies = ("reuse", "lru", "lfru", "placement")
    ratios = []
    for i in range(20):
        budget = floor + (resident - floor) * i // 19
        said = bench.sluice(32, 4, budget, "--io", ("uring", "pread")[i % 2], "--prefetch", predictors[i % 3], "--policy",
                            policies[i // 2 % 4], *(["--chunk", (1, 8, 32)[i % 3]] if i % 2 else []), limit=budget,
                            threads=(2, 1, 3)[i % 3])
        ratios.append(said["cgroup_peak"] / budget)
    return "kernel's peak over the budget, the worst of 20", [max(ratios)], "<= 1.00", "1.00"


def store_row(bench, resident):
    """The store's share of a resident token: a request of every layer, measured alone, over the token's time."""
    shares = []
    for _ in range(bench.options.repetitions):
        out, _, _ = run_in_cgroup(None, [bench.options.store_bench, *bench.shape])
        shares.append(json.loads(out)["ns_per_token"] * 1e-9 * resident["decode_tok_s"])
    return "cost of the store when everything is resident, share", shares, "<= 0.03", "0.01"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--sluice", default=ROOT / "build/sluice", type=pathlib.Path)
    parser.add_argument("--store-bench", default=ROOT / "build/bench/store_bench", type=pathlib.Path)
    parser.add_argument("--peer", type=pathlib.Path, help="llama-bench of the engine to compare with")
    parser.add_argument("--mem", type=int, default=1000, help="MiB of the cgroup and of --mem (default 1000)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="tokens to decode in a run (default 32)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--fio-seconds", type=int, default=2)
    parser.add_argument("--only", default="decode,prefill,budgets,predictors,store", help="parts to measure, by comma")
    parser.add_argument("--results", type=pathlib.Path, help=f"append the table to this file, as {RESULTS.relative_to(ROOT)}")
    parser.add_argument("extra", nargs="*", help="options for every sluice command that runs the model, after --")
    options = parser.parse_args()
    parts = options.only.split(",")
    with huge_pages(32) as options.fio_huge:
        bench = Bench(options)
        touch_memory(2 * TOUCHED_BYTES)
        resident = bench.sluice(512, options.tokens, repetitions=5)
        rows = [("resident decode, tok/s", [resident["decode_tok_s"]], "", ""),
                ("resident prefill 512, tok/s", [resident["prefill_tok_s"]], "", "")]
        if "decode" in parts:
            rows += decode_rows(bench, resident)
        if "prefill" in parts:
            rows += prefill_rows(bench, resident)
        if "budgets" in parts:
            rows.append(budget_row(bench))
        if "predictors" in parts:
            rows += predictor_rows(bench)
        if "store" in parts:
            rows.append(store_row(bench, resident))
    print_table(rows)
    if options.results:
        append_results("streaming", rows, options.results, options.sluice)


if __name__ == "__main__":
    main()
