#!/usr/bin/env python3
"""Run every test: the C programs known to Meson, case by case, and the pytest suites.

Prints each failure with its output and each skip with its reason, then one closing line:
N passed, N failed, N skipped. Exits 1 when anything failed or nothing ran.
"""
import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
TAP_CASE = re.compile(r"^(?P<no>not )?ok\b[ \t]*(?P<number>\d+)?[ \t-]*(?P<name>.*)$")
TAP_PLAN = re.compile(r"^1\.\.(\d+)")
MESON_SKIP = 77
# Guards the run against a program that hangs; far above what any test takes.
HANG_SECONDS = 1500


@dataclasses.dataclass
class Outcome:
    """What one program or suite came to."""

    name: str
    passed: int = 0
    failures: list = dataclasses.field(default_factory=list)  # (case, text)
    skips: list = dataclasses.field(default_factory=list)     # (case, reason)


def signal_or_code(code):
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def read_tap(outcome, output):
    """Count the cases of a TAP stream. Lines before a case belong to it. Returns planned and seen cases."""
    planned = seen = 0
    before = []
    failed = None
    for line in output.splitlines():
        plan = TAP_PLAN.match(line)
        case = TAP_CASE.match(line)
        if plan:
            planned = int(plan.group(1))
        elif case and case.group("number"):
            seen += 1
            name, _, directive = case.group("name").partition("#")
            name = name.strip(" -")
            failed = None
            if directive.strip().upper().startswith("SKIP"):
                said = directive.strip()[len("SKIP"):].strip()
                reason = " ".join(text.strip("# ") for text in before if text.strip())
                # cmocka puts the case's name behind SKIP and the reason on the lines before.
                outcome.skips.append((name or said, reason or (said if name else "no reason given")))
            elif case.group("no"):
                failed = list(before)
                outcome.failures.append((name, failed))
            else:
                outcome.passed += 1
            before = []
        elif failed is not None and line.startswith("#"):
            failed.append(line)
        else:
            before.append(line)
    return planned, seen


def run_program(test, build):
    """One Meson test. Programs that speak TAP are counted by case, others as one case."""
    outcome = Outcome(test["name"])
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", **test.get("env", {}))
    environment.setdefault("ASAN_OPTIONS", "detect_stack_use_after_return=1:allocator_may_return_null=1")
    environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
    environment.setdefault("TSAN_OPTIONS", "allocator_may_return_null=1:halt_on_error=1")
    try:
        done = subprocess.run(test["cmd"], cwd=test.get("workdir") or build, env=environment, timeout=HANG_SECONDS,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        outcome.failures.append((outcome.name, [str(problem)]))
        return outcome
    output = done.stdout.decode(errors="replace")
    planned, seen = read_tap(outcome, output)
    tail = output.splitlines()[-60:]
    if seen == 0 and planned == 0:
        if done.returncode == 0:
            outcome.passed = 1
        elif done.returncode == MESON_SKIP:
            outcome.skips.append((outcome.name, " ".join(tail) or "no reason given"))
        else:
            outcome.failures.append((outcome.name, tail + [signal_or_code(done.returncode)]))
    elif seen < planned:
        outcome.failures.append((f"{planned - seen} cases never ran", tail + [signal_or_code(done.returncode)]))
    elif done.returncode != 0 and not outcome.failures:
        outcome.failures.append(("after the last case", tail + [signal_or_code(done.returncode)]))
    return outcome


def run_pytest(suite, build):
    """One folder of pytest files."""
    outcome = Outcome(f"pytest {suite}")
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    environment.setdefault("SLUICE_BINARY", str(build / "sluice"))
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(suite)]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, timeout=HANG_SECONDS, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as problem:
            outcome.failures.append((outcome.name, [str(problem)]))
            return outcome
        tail = done.stdout.decode(errors="replace").splitlines()[-60:]
        if not report.exists():
            outcome.failures.append((outcome.name, tail + [signal_or_code(done.returncode)]))
            return outcome
        cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    for case in cases:
        name = f"{case.get('classname', '')}.{case.get('name', '')}"
        problem = case.find("failure")
        if problem is None:
            problem = case.find("error")
        skipped = case.find("skipped")
        if problem is not None:
            outcome.failures.append((name, (problem.text or problem.get("message") or "").splitlines()[-80:]))
        elif skipped is not None:
            outcome.skips.append((name, skipped.get("message") or "no reason given"))
        else:
            outcome.passed += 1
    if done.returncode not in (0, 1, 5) and not outcome.failures:
        outcome.failures.append((outcome.name, tail + [signal_or_code(done.returncode)]))
    return outcome


def meson_tests(build, patterns):
    meson = shutil.which("meson")
    if meson is None:
        sys.exit("tests/run.py: meson is missing; run 'make deps'")
    listing = subprocess.run([meson, "introspect", "--tests", str(build)], capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        sys.exit(f"tests/run.py: {build} is no build directory; run 'make' first\n{listing.stderr}")
    return [test for test in json.loads(listing.stdout) if matches(test["name"], patterns)]


def pytest_suites(patterns):
    """Folders below tests/ that hold pytest files."""
    found = sorted({path.parent.relative_to(ROOT) for path in (ROOT / "tests").glob("*/test_*.py")})
    return [suite for suite in found if matches(str(suite), patterns)]


def matches(name, patterns):
    return not patterns or any(pattern in name for pattern in patterns)


def report(outcome):
    counts = f"{outcome.passed} passed"
    if outcome.failures:
        counts += f", {len(outcome.failures)} FAILED"
    if outcome.skips:
        counts += f", {len(outcome.skips)} skipped"
    print(f"{outcome.name}: {counts}", flush=True)
    for case, lines in outcome.failures:
        print(f"  FAILED {outcome.name}: {case}")
        for line in lines:
            print(f"    | {line}")
    for case, reason in outcome.skips:
        print(f"  skipped {outcome.name}: {case}: {reason}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="build directory (build)")
    parser.add_argument("--only-c", action="store_true", help="leave the pytest suites out")
    parser.add_argument("--jobs", type=int, default=2, help="programs at once (2)")
    parser.add_argument("patterns", nargs="*", help="run only names that contain one of these")
    arguments = parser.parse_args()
    build = (ROOT / arguments.build).resolve()

    work = [(run_program, test) for test in meson_tests(build, arguments.patterns)]
    if not arguments.only_c:
        suites = pytest_suites(arguments.patterns)
        # The suites take longest, so they start first.
        work = [(run_pytest, suite) for suite in suites] + work
    totals = [0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        futures = [pool.submit(run, item, build) for run, item in work]
        for future in concurrent.futures.as_completed(futures):
            outcome = future.result()
            report(outcome)
            totals[0] += outcome.passed
            totals[1] += len(outcome.failures)
            totals[2] += len(outcome.skips)
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped", flush=True)
    return 1 if totals[1] > 0 or totals[0] == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
