"""What bench/replay says of recorded routing, against plain implementations of LRU and of Belady's rule."""
import pathlib
import subprocess

import pytest

from support import program

RECORDING = program.ROOT / "tests" / "golden" / "routing" / "tales.routing"
SLOTS = (4, 16, 32, 64, 100, 128)
POLICIES = ("lru", "lfru", "pinned", "placement", "reuse")
HALF_A_DIGIT = 0.0006


def replay(*arguments, code=0):
    tool = pathlib.Path(program.binary()).parent / "bench" / "replay"
    if not tool.exists():
        pytest.skip(f"{tool} is not built")
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def requests():
    """Each a list of (layer, expert), in the order in which the store is asked."""
    lines = RECORDING.read_text().splitlines()
    assert lines[0] == "sluice-routing 1 layers 4 experts 32 used 4" and lines[-1] == "end"
    assert set(lines[1:-1:5]) == {"chunk 1"}
    return [[(i % 5, int(e)) for e in line.split()] for i, line in enumerate(lines[2:-1]) if i % 5 < 4]


@pytest.fixture(scope="module")
def table():
    """{slots: {name: hit rate}}, by policy and "Belady"."""
    lines = replay(RECORDING, "--slots", ",".join(map(str, SLOTS))).stdout.splitlines()
    names = lines[1].split()[3:]
    assert names == [*POLICIES, "Belady"]
    rows = [line.replace("%", "").split() for line in lines[2:]]
    return {int(row[1]): dict(zip(names, map(float, [*row[2:-1:2], row[-1]]))) for row in rows}


def hit_rate(requests, n_slots, victim):
    """Serve all; `victim` picks among {expert: when asked for last} of those that the request did not ask for."""
    resident, hits, place = {}, 0, 0
    for request in requests:
        hits += sum(e in resident for e in request)
        for i, e in enumerate(request):
            if e in resident:
                resident[e] = place + i
        for i, e in enumerate(request):
            if e not in resident:
                if len(resident) == n_slots:
                    del resident[victim({k: v for k, v in resident.items() if k not in request})]
                resident[e] = place + i
        place += len(request)
    return hits / place


@pytest.mark.parametrize("slots", SLOTS)
def test_lru(requests, table, slots):
    expected = hit_rate(requests, slots, lambda resident: min(resident, key=resident.get))
    assert table[slots]["lru"] == pytest.approx(expected, abs=HALF_A_DIGIT)


@pytest.mark.parametrize("slots", SLOTS)
def test_belady(requests, table, slots):
    asked = [e for request in requests for e in request]
    following, seen = [0] * len(asked), {}
    for i in reversed(range(len(asked))):
        following[i] = seen.get(asked[i], len(asked))
        seen[asked[i]] = i
    expected = hit_rate(requests, slots, lambda resident: max(resident, key=lambda e: following[resident[e]]))
    assert table[slots]["Belady"] == pytest.approx(expected, abs=HALF_A_DIGIT)


@pytest.mark.parametrize("slots", SLOTS)
def test_no_policy_beats_belady(table, slots):
    assert max(table[slots].values()) == table[slots]["Belady"]


def test_rows_and_columns_can_be_chosen():
    lines = replay(RECORDING, "--working-sets", "0.5,2", "--policy", "auto,lru").stdout.splitlines()
    assert lines[1].split()[3:] == ["lru", "reuse", "Belady"]
    assert [line.split()[1] for line in lines[2:]] == ["8", "32"]  # 4 layers of 4 experts are one working set


def test_pins_come_from_the_trace_that_is_given(tmp_path):
    lines = RECORDING.read_text().splitlines()
    half = tmp_path / "half.routing"
    half.write_text("\n".join([*lines[:1 + 500 * 5], "end", ""]))
    one = tmp_path / "one.routing"
    one.write_text("\n".join([*lines[:6], "end", ""]))
    options = (RECORDING, "--policy", "pinned", "--slots", 64)
    assert replay(*options, "--policy-trace", half).stdout == replay(*options).stdout
    assert replay(*options, "--policy-trace", one).stdout != replay(*options).stdout
    other = tmp_path / "other.routing"
    other.write_text("sluice-routing 1 layers 4 experts 16 used 4\nend\n")
    assert "different models" in replay(*options, "--policy-trace", other, code=1).stderr


def test_what_is_no_recording_is_refused():
    assert "usage" in replay(code=2).stderr
    assert "usage" in replay(RECORDING, "--slots", "12,x", code=2).stderr
    assert "usage" in replay(RECORDING, "--policy", "belady", code=2).stderr
    assert "no part of a recording" in replay(__file__, code=1).stderr
