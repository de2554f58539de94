#!/usr/bin/env python3
"""How fast a model bigger than memory runs: one table, from paired and interleaved runs in a memory cgroup.

Each row of the table is a ratio with its limit and its aim. The disk is measured beside every run with fio, at the size and
depth of the engine's own reads, because shared disks drift. Caches are dropped before every run. Needs root (cgroups, caches)
and fio. With --peer (the path of a llama-bench) the rows against it are measured too; without it they are left out.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support import cgroup  # noqa: E402  (the path above finds it)

MIB = 1 << 20
PROMPT = "Once upon a time there was a king who had a daughter and a horse"


def run_in_cgroup(limit, command):
    """Run a command in a fresh cgroup (limit None: in none), cold. Returns its output, the cgroup's peak and the seconds."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
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
        out, _, _ = run_in_cgroup(None, [options.sluice, "inspect", "-m", options.model, "--ctx", 1024, "--json"])
        said = json.loads(out)
        self.plan = said["memory_plan"]
        self.dense_bytes, self.expert_bytes = said["dense_bytes"], said["expert_bytes"]
        self.one_expert_bytes = said["max_expert_bytes"]

    def sluice(self, prompt, generate, budget=None, repetitions=1, limit=None):
        out, peak, _ = run_in_cgroup(limit, [
            self.options.sluice, "bench", "-m", self.options.model, "-p", prompt, "-n", generate, "-r", repetitions, "-t",
            self.options.threads, "--ctx", 1024, "--json", *(["--mem", budget] if budget else []), *self.options.extra])
        said = json.loads(out)
        said["cgroup_peak"] = peak
        return said

    def peer(self, prompt, generate):
        out, _, _ = run_in_cgroup(self.limit, [
            self.options.peer, "-m", self.options.model, "-p", prompt, "-n", generate, "-r", 1, "-t", self.options.threads,
            "-o", "json"])
        return json.loads(out[out.index("["):out.rindex("]") + 1])[0]["avg_ts"]

    def disk_bytes_per_s(self):
        """Random reads of an expert matrix's size, about as many in flight as a layer's misses."""
        block = self.one_expert_bytes // 3 // 4096 * 4096
        out, _, _ = run_in_cgroup(None, [
            "fio", "--name=experts", f"--filename={self.options.model}", "--readonly", "--rw=randread", f"--bs={block}",
            "--iodepth=16", "--direct=1", "--ioengine=libaio", "--time_based", f"--runtime={self.options.fio_seconds}",
            "--output-format=json"])
        return json.loads(out[out.index("{"):])["jobs"][0]["read"]["bw_bytes"]

    def first_token_s(self):
        """From the start of the program to its end after one token of a 16-token prompt; and the bytes it had to read."""
        with tempfile.TemporaryDirectory() as folder:
            stats = pathlib.Path(folder) / "stats.json"
            _, _, seconds = run_in_cgroup(self.limit, [
                self.options.sluice, "run", "-m", self.options.model, "-p", PROMPT, "-n", 1, "--temp", 0, "--ctx", 1024, "--mem",
                self.limit, "-t", self.options.threads, "--stats", stats, *self.options.extra])
            return seconds, self.dense_bytes + json.loads(stats.read_text())["bytes_read"]


def decode_rows(bench, resident):
    """Decode figures; the bytes of the decoded tokens alone are the difference to a run of one token."""
    tokens = bench.options.tokens
    before = bench.sluice(16, 1, bench.limit, limit=bench.limit)
    ours, over_peer, over_bound, over_bytes, peaks = [], [], [], [], []
    for i in range(bench.options.repetitions):
        disk = bench.disk_bytes_per_s()
        said = bench.sluice(16, tokens + 1, bench.limit, limit=bench.limit)
        disk = (disk + bench.disk_bytes_per_s()) / 2
        missed = (said["expert_misses"] - before["expert_misses"]) * bench.one_expert_bytes / tokens
        ours.append(said["decode_tok_s"])
        over_bound.append(1 / said["decode_tok_s"] / max(1 / resident["decode_tok_s"], missed / disk))
        over_bytes.append(said["bytes_read"] / (said["expert_misses"] * bench.one_expert_bytes))
        peaks.append(said["cgroup_peak"] / bench.limit)
        if bench.options.peer:
            over_peer.append(said["decode_tok_s"] / bench.peer(0, max(4, tokens // 8)))
        print(f"  decode {i + 1}: {ours[-1]:.2f} tok/s, {missed / MIB:.0f} MiB missed a token, disk {disk / 1e9:.2f} GB/s, over the "
              f"bound {over_bound[-1]:.3f}" + (f", over the peer {over_peer[-1]:.1f}" if over_peer else ""), file=sys.stderr)
    yield "decode in the cgroup, tok/s", ours, "", ""
    if over_peer:
        yield "decode over the peer in the same cgroup", over_peer, ">= 10", "20"
    yield "token time over max(resident compute, missed bytes / disk)", over_bound, "<= 1.25", "1.05"
    yield "bytes read over missed experts' bytes", over_bytes, "<= 1.02", "1.005"
    yield "kernel's peak of the cgroup over the budget", peaks, "<= 1.00", "1.00"


def prefill_rows(bench, resident):
    ours, over_bound, over_peer, first = [], [], [], []
    for i in range(bench.options.repetitions):
        disk = bench.disk_bytes_per_s()
        said = bench.sluice(512, 1, bench.limit, limit=bench.limit)
        ours.append(said["prefill_tok_s"])
        over_bound.append(512 / said["prefill_tok_s"] / (512 / resident["prefill_tok_s"] + bench.expert_bytes / disk))
        if bench.options.peer:
            over_peer.append(said["prefill_tok_s"] / bench.peer(512, 0))
        disk = bench.disk_bytes_per_s()
        seconds, needed = bench.first_token_s()
        first.append(seconds / (needed / disk))
        print(f"  prefill {i + 1}: {ours[-1]:.1f} tok/s, over the bound {over_bound[-1]:.3f}; first token {seconds:.2f} s, over the "
              f"bound {first[-1]:.3f}" + (f", over the peer {over_peer[-1]:.2f}" if over_peer else ""), file=sys.stderr)
    yield "prefill 512 in the cgroup, tok/s", ours, "", ""
    yield "prefill 512 over (resident time + one pass of the experts)", over_bound, "<= 1.3", "1.1"
    if over_peer:
        yield "prefill 512 over the peer in the same cgroup", over_peer, ">= 1.0", "1.5"
    yield "first token, cold, over (dense + missed bytes) / disk", first, "<= 1.5", "1.15"


def budget_row(bench):
    floor, resident = bench.plan["floor_bytes"], bench.plan["resident_bytes"]
    ratios = []
    for i in range(20):
        budget = floor + (resident - floor) * i // 19
        ratios.append(bench.sluice(32, 4, budget, limit=budget)["cgroup_peak"] / budget)
    return "kernel's peak over the budget at 20 budgets, the worst", [max(ratios)], "<= 1.00", "1.00"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--sluice", default=ROOT / "build/sluice", type=pathlib.Path)
    parser.add_argument("--peer", type=pathlib.Path, help="llama-bench of the engine to compare with")
    parser.add_argument("--mem", type=int, default=1000, help="MiB of the cgroup and of --mem (default 1000)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="tokens to decode in a run (default 32)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--fio-seconds", type=int, default=3)
    parser.add_argument("--budgets", action="store_true", help="also run at 20 budgets from the floor to all experts")
    parser.add_argument("extra", nargs="*", help="options for every sluice command that runs the model, after --")
    bench = Bench(parser.parse_args())
    resident = bench.sluice(512, bench.options.tokens, repetitions=3)
    rows = [("resident decode, tok/s", [resident["decode_tok_s"]], "", ""),
            ("resident prefill 512, tok/s", [resident["prefill_tok_s"]], "", ""),
            *decode_rows(bench, resident), *prefill_rows(bench, resident)]
    if bench.options.budgets:
        rows.append(budget_row(bench))
    width = max(len(row[0]) for row in rows)
    print(f"{'what':{width}}  {'median':>9} {'lowest':>9} {'highest':>9}  {'at least':>8}  {'aim':>5}")
    for what, values, limit, aim in rows:
        print(f"{what:{width}}  {statistics.median(values):9.4g} {min(values):9.4g} {max(values):9.4g}  {limit:>8}  {aim:>5}")


if __name__ == "__main__":
    main()
