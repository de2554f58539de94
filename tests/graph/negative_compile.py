#!/usr/bin/env python3
"""Buffers in the wrong place do not compile: each file in negative/ is refused because of its types, and compiles once the one
wrong argument is corrected. Speaks TAP. Argument: the C compiler as one shell word list.
"""
import os
import pathlib
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-fsyntax-only", "-Iinclude", "-Isrc"]


def compile_file(compiler, path, *flags):
    return subprocess.run([*compiler, *FLAGS, *flags, str(path.relative_to(ROOT))], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "LC_ALL": "C"}, check=False)


def problem_with(compiler, path):
    corrected = compile_file(compiler, path, "-DCORRECT")
    if corrected.returncode != 0:
        return "the corrected wiring does not compile:\n" + corrected.stderr
    wrong = compile_file(compiler, path)
    if wrong.returncode == 0:
        return "the wrong wiring compiles"
    errors = [line for line in wrong.stderr.splitlines() if "error:" in line]
    if len(errors) != 1 or "incompatible type" not in errors[0]:
        return "expected one error about an incompatible type, found:\n" + wrong.stderr
    return ""


def main():
    compiler = shlex.split(sys.argv[1])
    files = sorted((HERE / "negative").glob("*.c"))
    print(f"1..{len(files)}")
    failed = not files
    for number, path in enumerate(files, 1):
        problem = problem_with(compiler, path)
        failed = failed or problem != ""
        print(f"{'not ok' if problem else 'ok'} {number} - {path.stem}")
        print("".join(f"# {line}\n" for line in problem.splitlines()), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
