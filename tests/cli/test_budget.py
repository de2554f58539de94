"""--mem holds for the whole process, by the kernel's own figures; what cannot fit is refused with the budget that can."""
import json
import os
import re

import pytest

from support import cgroup, program

COMMAND = ("run", "-m", program.DEMO, "-p", "Once upon a time there was a king who", "-n", 100, "--ignore-eos", "--temp", 0,
           "--ctx", 256)
BUDGETS = ("floor", "floor and a tenth", "floor and a third", "floor and all", "plenty")


@pytest.fixture(scope="module")
def floor():
    return program.floor_bytes(*COMMAND)


@pytest.fixture(scope="module")
def text():
    return program.run(*COMMAND).out


def budget_bytes(name, floor):
    model = program.DEMO.stat().st_size
    return floor + {"floor": 0, "floor and a tenth": model // 10, "floor and a third": model // 3, "floor and all": model,
                    "plenty": 16 * model}[name]


@pytest.mark.parametrize("name", BUDGETS)
def test_resident_memory_stays_within_the_budget(tmp_path, floor, text, name):
    budget, stats = budget_bytes(name, floor), tmp_path / "stats.json"
    ended = program.run_measured(*COMMAND, "--mem", budget, "--stats", stats)
    assert ended.peak_bytes <= budget
    assert ended.out == text
    said = json.loads(stats.read_text())
    assert said["mem_budget_bytes"] == budget
    # The program reports the kernel's figure before it ends; the last pages of its end are not in it.
    assert said["mem_peak_bytes"] == pytest.approx(ended.peak_bytes, abs=program.MIB)


@pytest.mark.parametrize("name", BUDGETS)
def test_it_runs_in_a_cgroup_of_the_budget(floor, text, name):
    """Cold: the file's pages are charged to the one who reads them, and the program's own too."""
    if os.geteuid() != 0:
        pytest.skip("needs root to create a memory cgroup")
    budget = budget_bytes(name, floor)
    program.forget_cached(program.DEMO)
    with cgroup.MemoryCgroup(budget) as group:
        ended = program.run_measured(*COMMAND, "--mem", budget, code=None, procs=group.procs)
        assert group.oom_kills() == 0
        assert ended.code == 0, ended.err
        assert 0 < group.peak_bytes() <= budget
        assert group.limit_hits() == 0
        assert ended.out == text


PARTS = ("dense", "kv", "activation", "i/o", "vocabulary|text|tokenizer", "expert|slot", "process|program")


def test_below_the_floor_it_names_every_part_and_the_budget_that_works(floor):
    ended = program.run(*COMMAND, "--mem", floor - 1, code=1)
    assert ended.out == ""
    for part in PARTS:
        assert re.search(rf"({part})[^,;.]*\d", ended.err, re.IGNORECASE), f"no figure for {part} in: {ended.err}"
    assert program.smallest_budget(ended.err) == floor
    program.run(*COMMAND, "--mem", floor)


@pytest.mark.parametrize("context", (16, 64, 1024))
def test_the_stated_floor_follows_the_context(context):
    """Each context has a floor of its own; every one of them works, and one byte less does not."""
    command = (*COMMAND[:5], "-n", 5, "--ignore-eos", "--temp", 0, "--ctx", context)
    floor = program.floor_bytes(*command)
    program.run(*command, "--mem", floor)
    program.run(*command, "--mem", floor - 1, code=1)


def test_the_floor_grows_with_the_context():
    floors = [program.floor_bytes(*COMMAND[:-1], context) for context in (64, 256, 1024)]
    assert floors == sorted(set(floors))


def test_a_budget_is_refused_before_a_weight_is_read(tmp_path):
    """A file whose tensors are missing is enough to be told that it would not fit."""
    with open(program.DEMO, "rb") as file:
        head = file.read()
    path = tmp_path / "sparse.gguf"
    with open(path, "wb") as file:
        file.write(head[:len(head) // 2])
        file.truncate(len(head))
    ended = program.run("run", "-m", path, "-p", "x", "-n", 1, "--mem", "1K", code=1)
    assert program.smallest_budget(ended.err) > 0


def planned(*arguments, **options):
    return json.loads(program.run_measured("inspect", "-m", program.DEMO, "--json", *arguments, **options).out)["memory_plan"]


def less_the_reserve(limit):
    return limit - min(limit // 16, 256 << 20)


def meminfo(key):
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def test_a_budget_that_is_not_given_is_found():
    """Other programs take and give memory meanwhile, so what is available is compared roughly."""
    for arguments in ((), ("--mem", "auto")):
        found = planned(*arguments)["budget_bytes"]
        assert 0 < found <= less_the_reserve(meminfo("MemTotal:"))
        assert found <= 2 * less_the_reserve(meminfo("MemAvailable:"))


@pytest.mark.parametrize("nested", (False, True))
def test_auto_is_the_smallest_limit_of_all_cgroups_and_an_explicit_budget_wins(text, nested):
    if os.geteuid() != 0:
        pytest.skip("needs root to create a memory cgroup")
    limit = 48 << 20
    with cgroup.MemoryCgroup(limit) as group:
        path = group.path / "inner" if nested else group.path
        path.mkdir(exist_ok=True)
        try:
            procs = path / "cgroup.procs"
            assert planned("--mem", "auto", procs=procs)["budget_bytes"] == less_the_reserve(limit)
            assert planned("--mem", "20M", procs=procs)["budget_bytes"] == 20 << 20
            assert planned("--mem", "1G", procs=procs)["budget_bytes"] == 1 << 30
            ended = program.run_measured(*COMMAND, "--mem", "auto", procs=procs)
            assert ended.out == text and ended.peak_bytes <= limit
        finally:
            if nested:
                path.rmdir()
        assert group.oom_kills() == 0
