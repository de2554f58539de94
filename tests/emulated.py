#!/usr/bin/env python3
"""Run a cross build under an emulator: C tests, case by case, and the models of the repository against the native program.

The same model and the same input must give the same logits, bit for bit, on both architectures.
Prints each failure with its output and each skip with its reason, then one closing line, as tests/run.py does.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys

import run

ROOT = run.ROOT
# What depends on the architecture: arithmetic, formats, processor features. The rest is the same code as at home.
C_TESTS = ("kernels", "os_cpu", "quant_", "graph_", "text_", "gguf_reader", "base_")
DEMO = ROOT / "models" / "tales.gguf"
GOLDEN = ("qwen3moe", "qwen2moe", "olmoe", "mixtral")
TEXT = ("There was once a miller who had three sons, a mill, a donkey and a cat. The sons had to grind, the donkey had to "
        "fetch the corn and carry the flour away, and the cat had to catch the mice.")
TOKENS = ",".join(str((17 * i + 3) % 90) for i in range(40))


class Failed(Exception):
    """Why a case failed."""


def ended(command, arguments):
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False,
                          timeout=run.HANG_SECONDS, stdin=subprocess.DEVNULL)


def logits(command, model, *options):
    done = ended(command, ("logits", "-m", model, "--json", *options))
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {run.signal_or_code(done.returncode)}\n{done.stderr}")
    return json.loads(done.stdout)


def expect(what, found, expected):
    if found != expected:
        raise Failed(f"{what}: expected {expected}, found {found}")


def same_bits(native, emulated, isa, model, *options, emulated_options=()):
    """Both programs, the same input: the same hash, and the emulated one with the instruction set named."""
    here = logits(native, model, *options)
    there = logits(emulated, model, *options, *emulated_options)
    expect("instruction set", there["isa"], isa)
    expect("logits hash", there["logits_hash"], here["logits_hash"])


def refuses_a_mask(command, mask, sentence):
    done = ended(command, ("logits", "-m", DEMO, "-p", "Once", "--cpu-mask", mask))
    if done.returncode == 0 or sentence not in done.stderr:
        raise Failed(f"--cpu-mask {mask}: expected a refusal with '{sentence}', found {done.returncode}: {done.stderr}")


def model_cases(native, emulated, basic):
    """(name, function without arguments); `basic` is a processor without dot products."""
    demo = (DEMO, "-p", TEXT, "--ctx", 128)
    yield "demo", lambda: same_bits(native, emulated, "neon", *demo)
    yield "demo, token by token", lambda: same_bits(native, emulated, "neon", *demo, emulated_options=("--decode",))
    yield "demo, generic", lambda: same_bits(native, emulated, "generic", *demo,
                                             emulated_options=("--cpu-mask", "generic"))
    yield "demo, tight budget", lambda: same_bits(native, emulated, "neon", *demo,
                                                  emulated_options=("--mem", floor_bytes(emulated, demo)))
    yield "demo, processor without dot products", lambda: same_bits(native, basic, "generic", *demo)
    yield "neon is refused without dot products", lambda: refuses_a_mask(basic, "neon", "this processor has no neon")
    yield "avx2 is refused", lambda: refuses_a_mask(emulated, "avx2", "this processor has no avx2")
    for family in GOLDEN:
        model = ROOT / "tests" / "golden" / "models" / f"{family}.gguf"
        yield family, lambda model=model: same_bits(native, emulated, "neon", model, "--tokens", TOKENS)


def floor_bytes(command, demo):
    done = ended(command, ("inspect", "-m", demo[0], "--ctx", demo[-1], "--json"))
    if done.returncode != 0:
        raise Failed(done.stderr)
    return json.loads(done.stdout)["memory_plan"]["floor_bytes"]


def run_models(native, emulated, basic):
    outcome = run.Outcome("models, emulated")
    for name, case in model_cases(native, emulated, basic):
        try:
            case()
            outcome.passed += 1
        except (Failed, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as problem:
            outcome.failures.append((name, str(problem).splitlines()))
    return outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True, help="directory of the cross build")
    parser.add_argument("--native", required=True, help="the program built for this machine")
    parser.add_argument("--emulator", required=True, help="command that runs a program of the cross build")
    parser.add_argument("--basic", required=True, help="its arguments for a processor without dot products")
    arguments = parser.parse_args()
    build = (ROOT / arguments.build).resolve()
    emulator = shlex.split(arguments.emulator)
    program = str(build / "sluice")

    outcomes = []
    for test in run.meson_tests(build, C_TESTS):
        if not test["cmd"][0].startswith(str(build)):
            continue
        outcomes.append(run.run_program(dict(test, cmd=[*emulator, *test["cmd"]]), build))
        run.report(outcomes[-1])
    native = [str(pathlib.Path(arguments.native).resolve())]
    outcomes.append(run_models(native, [*emulator, program], [*emulator, *shlex.split(arguments.basic), program]))
    run.report(outcomes[-1])
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(len(outcome.failures) for outcome in outcomes)
    skipped = sum(len(outcome.skips) for outcome in outcomes)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed > 0 or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
