#!/usr/bin/env python3
"""The speed of every kernel on every instruction set of this machine, from test_kernels --bench, and how fast its memory is read.

What the program prints is passed on as it comes. Each figure is already the best of several rounds.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

from measure import RESULTS, ROOT, append_results

PRODUCT = re.compile(r"(\w+) +(\w+) +decode cached +([\d.]+) GB/s .* streamed +([\d.]+) GB/s, +([\d.]+) of memory +prefill +([\d.]+) GFLOP/s")
PRODUCT_FIGURES = ("one token from the caches, GB/s", "one token from memory, GB/s", "one token, of the read bandwidth",
                   "many tokens, GFLOP/s")
ATTENTION = re.compile(r"(\w+) +(attention, \w+, \d+ queries of +\d+ tokens).* ([\d.]+) GFLOP/s")


def rows_of(line):
    if match := PRODUCT.match(line):
        isa, kind, *figures = match.groups()
        return [(f"{isa}: {kind}: {what}", [float(figure)], "", "") for what, figure in zip(PRODUCT_FIGURES, figures)]
    if match := ATTENTION.match(line):
        return [(f"{match[1]}: {' '.join(match[2].split())}, GFLOP/s", [float(match[3])], "", "")]
    return []


def bandwidth_rows(program):
    for threads in (1, 2):
        said = json.loads(subprocess.run([program, "--bandwidth", str(threads)], capture_output=True, text=True, check=True).stdout)
        yield f"memory read bandwidth, {threads} thread{'s' * (threads > 1)}, GB/s", [said["read_bytes_per_s"] / 1e9], "", ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="only the products with weights whose name begins with this, or attention")
    parser.add_argument("--test-kernels", default=ROOT / "build/tests/kernels/test_kernels", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path, help=f"append the figures to this file, as {RESULTS.relative_to(ROOT)}")
    options = parser.parse_args()
    rows = list(bandwidth_rows(options.test_kernels))
    for what, values, _, _ in rows:
        print(f"{what}: {values[0]:.1f}", flush=True)
    command = [options.test_kernels, "--bench"] + ([options.name] if options.name else [])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            print(line, end="", flush=True)
            rows += rows_of(line)
    if program.returncode == 0 and options.results:
        append_results("kernels", rows, options.results, options.test_kernels)
    sys.exit(program.returncode)


if __name__ == "__main__":
    main()
