#!/usr/bin/env python3
"""demo.py PROGRAM: let the demo model tell a tale with half of its experts in memory, and show what that took.

The budget lies midway between the smallest that works and the one in which every expert stays in memory.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "tales.gguf"
PROMPT = "Once upon a time there was a king who had a golden"
TOKENS, CONTEXT, SEED, TEMPERATURE = 200, 256, 4, 0.7
BAR = 40


def size(count):
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            break
        count /= 1024
    else:
        unit = "GiB"
    return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"


def style(code, text):
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


class Wrapped:
    """Prints words as they come, broken at the width of the terminal."""

    def __init__(self):
        self.width = min(100, shutil.get_terminal_size().columns) - 4
        self.column = 0
        self.word = ""

    def write(self, text):
        for character in text:
            if character in " \n":
                self.end_word()
                if character == "\n":
                    self.new_line()
            else:
                self.word += character
        sys.stdout.flush()

    def end_word(self):
        if not self.word:
            return
        if self.column and self.column + 1 + len(self.word) > self.width:
            self.new_line()
        sys.stdout.write((" " if self.column else "  ") + self.word)
        self.column += len(self.word) + 1
        self.word = ""

    def new_line(self):
        sys.stdout.write("\n")
        self.column = 0


def plan(program):
    done = subprocess.run([program, "inspect", "-m", MODEL, "--ctx", str(CONTEXT), "--json"], capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    return json.loads(done.stdout)["memory_plan"]


def tell(program, budget, stats):
    """Run the model and print its text as it comes. Returns what it said on standard error when it failed."""
    command = [program, "run", "-m", MODEL, "--ctx", str(CONTEXT), "--mem", str(budget), "-p", PROMPT, "-n", str(TOKENS),
               "--temp", str(TEMPERATURE), "--seed", str(SEED), "--ignore-eos", "--stats", stats]
    out = Wrapped()
    with tempfile.TemporaryFile("w+") as complaints:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as child:
            print(style("1", textwrap.fill(PROMPT, out.width, initial_indent="  ", subsequent_indent="  ")), end="")
            out.column = len(PROMPT) + 1
            pending = b""
            while piece := child.stdout.read1(4096):
                pending += piece
                text = pending.decode(errors="ignore")
                pending = pending[len(text.encode()):]
                out.write(text)
            out.end_word()
            print("\n")
        complaints.seek(0)
        return "" if child.returncode == 0 else complaints.read()


def show(stats, whole):
    filled = round(stats["hit_rate"] * BAR)
    rows = [
        ("hit rate", f"{stats['hit_rate'] * 100:.1f} %  {'#' * filled}{'.' * (BAR - filled)}  "
                     f"{stats['expert_hits']} of {stats['expert_requests']} expert requests"),
        ("read", f"{size(stats['bytes_read'])} from the file"),
        ("budget", f"{size(stats['mem_budget_bytes'])}; everything in memory would take {size(whole)}"),
        ("peak", f"{size(stats['mem_peak_bytes'])} as the kernel counts it"),
        ("speed", f"{stats['decode_tok_s']:.1f} tokens per second, {stats['isa']}, {stats['threads']} threads"),
    ]
    for name, value in rows:
        print(f"  {style('2', name.ljust(10))}{value}")


def main():
    program = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "sluice").resolve()
    if not program.exists():
        sys.exit(f"demo: {program} is missing; run 'make' first")
    if not MODEL.exists():
        sys.exit(f"demo: {MODEL} is missing; the repository carries it, so fetch it again")
    figures = plan(program)
    whole = figures["resident_bytes"]
    budget = (figures["floor_bytes"] + whole) // 2
    with tempfile.TemporaryDirectory() as folder:
        stats = pathlib.Path(folder) / "stats.json"
        print()
        complaint = tell(program, budget, stats)
        if complaint:
            sys.exit(complaint.strip())
        show(json.loads(stats.read_text()), whole)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
