"""What an interrupt leaves behind: a run ends with what it has, a file under its final name is complete or not there."""
import json
import os
import random
import signal
import subprocess
import time

import pytest

from support import gguf_file, program

KILLS = 40


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """The demo model with a context that no run here fills."""
    path = tmp_path_factory.mktemp("interrupt") / "endless.gguf"
    file = gguf_file.read(program.DEMO)
    gguf_file.write(gguf_file.with_key(file, "qwen3moe.context_length", 4, 1 << 17), path)
    return path


def start(*arguments):
    return subprocess.Popen([program.binary(), *map(str, arguments)], env=program.environment(), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_an_interrupted_run_ends_with_its_text_and_statistics(endless, tmp_path):
    stats = tmp_path / "stats.json"
    command = ("run", "-m", endless, "-p", "Once upon a time", "--ignore-eos", "--temp", 0, "--ctx", 1 << 17)
    child = start(*command, "-n", 1 << 16, "--stats", stats)
    first = os.read(child.stdout.fileno(), 1)
    while len(first) < 200:
        first += os.read(child.stdout.fileno(), 200)
    child.send_signal(signal.SIGINT)
    rest, err = child.communicate()
    assert child.returncode == 1, err.decode()
    said = json.loads(stats.read_text())
    assert 0 < said["generated_tokens"] < 1 << 16
    assert said["prompt_tokens"] > 0 and said["expert_requests"] > 0
    assert int(said["logits_hash"], 16) != 0
    whole = program.run(*command, "-n", said["generated_tokens"]).out
    assert (first + rest).decode(errors="surrogateescape").rstrip("\n") == whole.rstrip("\n")


def test_an_interrupted_prefill_ends_with_statistics(endless, tmp_path):
    stats, prompt = tmp_path / "stats.json", tmp_path / "prompt.txt"
    prompt.write_text("Once upon a time there was a king who had a daughter. " * 4000)
    child = start("run", "-m", endless, "-f", prompt, "-n", 10, "--ctx", 1 << 17, "--stats", stats, "--log-level", "info",
                  "-t", 1, "--cpu-mask", "generic")
    wait_until_busy(child)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    assert child.returncode == 1, err.decode()
    assert json.loads(stats.read_text())["generated_tokens"] == 0


def test_an_interrupted_benchmark_shows_what_it_measured(tmp_path):
    stats = tmp_path / "stats.json"
    child = start("bench", "-m", program.DEMO, "-p", 4, "-n", 4, "-r", 1000, "-t", 1, "--cpu-mask", "generic",
                  "--stats", stats)
    wait_until_busy(child)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert child.returncode == 1, err.decode()
    said = json.loads(stats.read_text())
    assert 0 < said["repetitions"] < 1000 and said["decode_tok_s_min"] <= said["decode_tok_s"]
    assert f"{said['repetitions']} repetitions" in out.decode()


def test_an_interrupted_perplexity_says_how_far_it_came(tmp_path):
    stats, text = tmp_path / "stats.json", tmp_path / "text.txt"
    text.write_text("Once upon a time there was a king who had a daughter. " * 40000)
    child = start("perplexity", "-m", program.DEMO, "-f", text, "--ctx", 64, "--stats", stats, "-t", 1, "--cpu-mask", "generic")
    wait_until_busy(child)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert child.returncode == 1 and out == b""
    said = json.loads(stats.read_text())
    assert f"stopped after {said['tokens']} predicted tokens" in err.decode()
    assert said["tokens"] > 0 and said["expert_requests"] > 0 and said["bits_per_byte"] is None
    assert said["prompt_tokens"] >= said["windows"] * 64


def wait_until_busy(child):
    """Until it has computed for a while: its own processor time, not the clock, as the machine may be busy."""
    ticks = os.sysconf("SC_CLK_TCK")
    while True:
        fields = open(f"/proc/{child.pid}/stat").read().rsplit(")", 1)[1].split()
        if int(fields[11]) >= ticks * 0.7:
            return
        assert child.poll() is None, child.stderr.read().decode()
        time.sleep(0.01)


def test_a_killed_quantize_leaves_the_whole_file_or_none(tmp_path):
    out = tmp_path / "out.gguf"
    command = ("quantize", program.DEMO, out, "F32", "-t", 1)
    began = time.monotonic()
    program.run(*command)
    lasted = time.monotonic() - began
    complete = out.read_bytes()
    out.unlink()
    draw, absent = random.Random(7), 0
    for _ in range(KILLS):
        child = start(*command)
        time.sleep(draw.uniform(0, lasted))
        child.kill()
        child.communicate()
        if out.exists():
            assert out.read_bytes() == complete
            out.unlink()
        else:
            absent += 1
    assert absent > 0, "no kill came before the end"
    program.run(*command)
    assert out.read_bytes() == complete


def test_a_killed_quantize_leaves_the_older_file_as_it_was(tmp_path):
    out = tmp_path / "out.gguf"
    command = ("quantize", program.DEMO, out, "F32", "-t", 1)
    began = time.monotonic()
    program.run(*command)
    lasted = time.monotonic() - began
    complete = out.read_bytes()
    draw, kept = random.Random(8), 0
    for _ in range(KILLS // 2):
        out.write_bytes(b"older")
        child = start(*command)
        time.sleep(draw.uniform(0, lasted))
        child.kill()
        child.communicate()
        now = out.read_bytes()
        assert now in (b"older", complete)
        kept += now == b"older"
    assert kept > 0, "no kill came before the end"


def test_an_interrupted_quantize_leaves_no_file(tmp_path):
    out = tmp_path / "out.gguf"
    command = ("quantize", program.DEMO, out, "F32", "-t", 1)
    began = time.monotonic()
    program.run(*command)
    lasted = time.monotonic() - began
    complete, draw, absent = out.read_bytes(), random.Random(9), 0
    out.unlink()
    for _ in range(10):
        child = start(*command)
        time.sleep(draw.uniform(0, lasted))
        child.send_signal(signal.SIGINT)
        child.communicate()
        if child.returncode == 0:
            assert out.read_bytes() == complete
            out.unlink()
        else:
            assert os.listdir(tmp_path) == []
            absent += 1
    assert absent > 0, "no interrupt came before the end"
