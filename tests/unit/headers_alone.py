#!/usr/bin/env python3
"""Compile every header alone: installed ones as C99 and C++11 with all warnings, internal ones as this project's C.

Speaks TAP. Arguments: the C compiler and the C++ compiler ("" when there is none), each as one shell word list,
and the architecture they compile for.
"""
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Headers of an instruction set are compiled for it, as their library is.
ISA_FLAGS = {
    "src/kernels/arm/": ["-march=armv8.2-a+dotprod"],
    "src/kernels/x86/avx2": ["-mavx2", "-mfma", "-mf16c", "-mno-avx512f"],
    "src/kernels/x86/avx512": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl",
                               "-mavx512vnni"],
    "src/kernels/x86/amx": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl",
                            "-mavx512vnni", "-mamx-tile", "-mamx-int8"],
}
STRICT = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror"]


def headers(folder):
    return sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.h"))


MACHINES = {"src/kernels/arm/": "aarch64", "src/kernels/x86/": "x86_64"}


def isa_flags(header, machine):
    """Flags of the instruction set a header belongs to; None where the compiler is for another architecture."""
    if any(str(header).startswith(prefix) and machine != owner for prefix, owner in MACHINES.items()):
        return None
    return next((flags for prefix, flags in ISA_FLAGS.items() if str(header).startswith(prefix)), [])


def cases(c_compiler, cxx_compiler, machine):
    """(name, command or None, reason for None)."""
    for header in headers("include"):
        yield (f"{header} as C99",
               [*c_compiler, "-std=c99", "-pedantic-errors", *STRICT, "-Iinclude", "-x", "c", str(header)], "")
        cxx = [*cxx_compiler, "-std=c++11", "-pedantic-errors", *STRICT, "-Iinclude", "-x", "c++", str(header)]
        yield f"{header} as C++", cxx if cxx_compiler else None, "no C++ compiler was found"
    for header in headers("src"):
        flags = isa_flags(header, machine)
        command = [*c_compiler, "-std=gnu11", "-D_GNU_SOURCE", *STRICT, *(flags or []), "-Wno-unused-function",
                   "-Iinclude", "-Isrc", "-x", "c", str(header)]
        yield f"{header} alone", None if flags is None else command, "an instruction set of another architecture"


def main():
    c_compiler, cxx_compiler = shlex.split(sys.argv[1]), shlex.split(sys.argv[2])
    plan = list(cases(c_compiler, cxx_compiler, sys.argv[3]))
    print(f"1..{len(plan)}")
    failed = False
    for number, (name, command, reason) in enumerate(plan, 1):
        if command is None:
            print(f"ok {number} - {name} # SKIP {reason}")
            continue
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(f"{'ok' if done.returncode == 0 else 'not ok'} {number} - {name}")
        if done.returncode != 0:
            failed = True
            print("\n".join("# " + line for line in done.stderr.splitlines()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
