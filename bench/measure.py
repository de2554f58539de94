"""What the benchmarks share: memory at hand, the table that is printed, and the file that results are kept in.

A row is (what, values, limit, aim): the repetitions' values, and what their median should reach, as text.
"""
import ctypes
import datetime
import mmap
import os
import pathlib
import platform
import re
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results.tsv"


def touch_memory(n_bytes):
    """Make the machine have this much memory at hand; some of it, or all, is what the next program gets."""
    with mmap.mmap(-1, n_bytes) as block:
        view = ctypes.c_char.from_buffer(block)
        ctypes.memset(ctypes.addressof(view), 1, n_bytes)
        del view


def print_table(rows):
    width = max(len(row[0]) for row in rows)
    print(f"{'what':{width}}  {'median':>9} {'lowest':>9} {'highest':>9}  {'at least':>8}  {'aim':>5}")
    for what, values, limit, aim in rows:
        print(f"{what:{width}}  {statistics.median(values):9.4g} {min(values):9.4g} {max(values):9.4g}  {limit:>8}  {aim:>5}")


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"


def compiler_of(program):
    """What the program says it was built by."""
    said = re.search(rb"GCC: \([^)]*\) ([0-9.]+)|(clang version [0-9.]+)", pathlib.Path(program).read_bytes())
    if said is None:
        return "unknown"
    return f"gcc {said[1].decode()}" if said[1] else said[2].decode()


def append_results(bench, rows, path, program):
    """One line a row, under the commit, the machine and the compiler of the program, so that runs can be compared later."""
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    with path.open("a", encoding="utf-8") as file:
        if file.tell() == 0:
            file.write("date\tcommit\tmachine\tcompiler\tbench\twhat\tmedian\tlowest\thighest\tn\n")
        for what, values, _, _ in rows:
            file.write("\t".join([datetime.date.today().isoformat(), commit, machine(), compiler_of(program), bench, what,
                                  *(f"{value:.6g}" for value in (statistics.median(values), min(values), max(values))),
                                  str(len(values))]) + "\n")
