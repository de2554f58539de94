"""The checks themselves: each finds what it is there to find, and counts what it is there to count."""
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


check_layers = load(ROOT / "tools" / "check_layers.py")
run_tests = load(ROOT / "tests" / "run.py")


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("room,target,allowed", [
    ("experts", "io/reads.h", True),
    ("experts", "experts/store.h", True),
    ("exec", "sluice/errors.h", True),
    ("io", "experts/store.h", False),
    ("experts", "graph/graph.h", False),
    ("cli", "os/clock.h", True),
    ("cli", "engine/engine.h", False),
    ("engine", "engine.h", False),
    ("engine", "unknown/thing.h", False),
])
def test_includes_go_down(tmp_path, room, target, allowed):
    write(tmp_path, f"src/{room}/file.c", f'#include "{target}"\n')
    assert (check_layers.check(tmp_path) == []) is allowed


def test_a_folder_outside_the_design_is_found(tmp_path):
    write(tmp_path, "src/misc/file.c", "\n")
    assert check_layers.check(tmp_path) != []


def style_findings(root):
    write(root, ".clang-format", (ROOT / ".clang-format").read_text())
    done = subprocess.run([sys.executable, ROOT / "tools" / "check_style.py", root], capture_output=True, text=True,
                          check=False)
    assert (done.returncode == 0) is ("\ncheck_style: 0 errors" in "\n" + done.stdout)
    return done.stdout


GOOD = "/* Owns nothing. */\nint answer(void)\n{\n    return 42; /* printf(\"not called\") */\n}\n"


@pytest.mark.parametrize("name,text,found", [
    ("src/base/a.c", GOOD, ": 0 errors"),
    ("src/base/a.c", GOOD.replace("return 42;", "return printf(\"x\");"), "printf(): the library never prints"),
    ("src/cli/a.c", GOOD.replace("return 42;", "return printf(\"x\");"), ": 0 errors"),
    ("src/cli/a.c", GOOD.replace("return 42;", "return getenv(\"x\") != 0;"), "getenv(): "),
    ("src/base/a.c", GOOD.replace("    return 42;", "    return 42;\n" * 80), "answer() has "),
    ("src/base/a.c", GOOD * 200, "the file has 1000 lines"),
    ("src/base/a.c", GOOD.rstrip("\n"), "no newline at the end"),
    ("docs/a.md", "text \n", "trailing blank"),
    ("docs/a.md", "TO" "DO: more\n", "unfinished work"),
    ("tools/a.py", "if 1:\n\tpass\n", "tab"),
])
def test_style_errors_are_found(tmp_path, name, text, found):
    write(tmp_path, name, text)
    assert found in style_findings(tmp_path)


def outcome_of(output):
    outcome = run_tests.Outcome("x")
    planned, seen = run_tests.read_tap(outcome, output)
    return outcome, planned, seen


def test_the_runner_counts_cases_as_cmocka_prints_them():
    outcome, planned, seen = outcome_of(
        "1..4\nok 1 - one\nnot ok 2 - two\n# 0x1 != 0x2\nno data at ../shared\nnot ok 3 # SKIP three\nok 4 - four\n# ok - x\n")
    assert (outcome.passed, planned, seen) == (2, 4, 4)
    assert [case for case, _ in outcome.failures] == ["two"] and "0x1 != 0x2" in outcome.failures[0][1][-1]
    assert outcome.skips == [("three", "no data at ../shared")]


def test_the_runner_reads_the_reason_of_a_skip_behind_its_mark():
    outcome, _, _ = outcome_of("1..1\nok 1 - header as C++ # SKIP no C++ compiler was found\n")
    assert outcome.skips == [("header as C++", "no C++ compiler was found")]


def test_a_program_that_ends_early_is_a_failure(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("print('1..3\\nok 1 - one')\n")
    outcome = run_tests.run_program({"name": "x", "cmd": [sys.executable, str(script)]}, tmp_path)
    assert outcome.passed == 1 and outcome.failures[0][0] == "2 cases never ran"


@pytest.mark.parametrize("code,passed,failed,skipped", [(0, 1, 0, 0), (1, 0, 1, 0), (77, 0, 0, 1)])
def test_a_program_without_cases_is_one_case(tmp_path, code, passed, failed, skipped):
    outcome = run_tests.run_program({"name": "x", "cmd": [sys.executable, "-c", f"raise SystemExit({code})"]}, tmp_path)
    assert (outcome.passed, len(outcome.failures), len(outcome.skips)) == (passed, failed, skipped)


def test_a_leak_after_the_last_case_is_a_failure(tmp_path):
    script = "print('1..1\\nok 1 - one'); raise SystemExit(23)"
    outcome = run_tests.run_program({"name": "x", "cmd": [sys.executable, "-c", script]}, tmp_path)
    assert [case for case, _ in outcome.failures] == ["after the last case"]
