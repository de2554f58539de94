"""The same bits with every way to read the experts, also where the system gives no io_uring."""
import ctypes
import functools
import json
import struct
import subprocess

import pytest

from support import program

TOKENS = ",".join(str(3 + 7 * i % 250) for i in range(40))
MODELS = ("mixtral", "olmoe", "qwen2moe", "qwen3moe")
IO_URING_SETUP = 425  # on every architecture
SECCOMP_FILTER, NO_NEW_PRIVILEGES, SECCOMP = 2, 38, 22
NOT_PERMITTED = 1


def words(model, backend, *options):
    return ("logits", "-m", program.GOLDEN / f"{model}.gguf", "--tokens", TOKENS, "--decode", "--io", backend, "--prefetch", "none",
            *options)


@functools.cache
def why_no_uring():
    """What the program says where it cannot have an io_uring, or None."""
    ended = program.run(*words("qwen3moe", "uring"), code=None)
    return ended.err.strip() if ended.code == 1 and "io_uring" in ended.err else None


def logits(model, backend, *options):
    return program.run_json(*words(model, backend, *options))


@pytest.mark.parametrize("model", MODELS)
def test_backends(model):
    """At the smallest budget nearly every layer of every token reads."""
    if why_no_uring():
        pytest.skip(why_no_uring())
    said = {backend: logits(model, backend, "--mem", program.floor_bytes(*words(model, backend)))
            for backend in ("pread", "uring", "auto")}
    assert {backend: answer["io_backend"].split(",")[0] for backend, answer in said.items()} == \
        {"pread": "pread", "uring": "uring", "auto": "uring"}
    assert len({answer["logits_hash"] for answer in said.values()}) == 1
    assert min(answer["expert_misses"] for answer in said.values()) > 20


def refuse_io_uring():
    """Makes io_uring_setup fail with EPERM in this process, as the filters of container runtimes do."""
    def instruction(code, jump_true, jump_false, value):
        return struct.pack("HBBI", code, jump_true, jump_false, value)

    program_bytes = ctypes.create_string_buffer(
        instruction(0x20, 0, 0, 0) + instruction(0x15, 0, 1, IO_URING_SETUP) +
        instruction(0x06, 0, 0, 0x00050000 | NOT_PERMITTED) + instruction(0x06, 0, 0, 0x7FFF0000))
    header = struct.pack("HxxxxxxP", 4, ctypes.addressof(program_bytes))
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if library.prctl(SECCOMP, SECCOMP_FILTER, header) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def run_without_uring(*arguments):
    try:
        return subprocess.run([program.binary(), *map(str, arguments)], env=program.environment(), check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, preexec_fn=refuse_io_uring)
    except subprocess.SubprocessError as problem:
        pytest.skip(f"cannot install a filter of system calls: {problem}")


def test_a_refused_io_uring_falls_back():
    done = run_without_uring(*words("qwen3moe", "auto", "--json", "--log-level", "info"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["io_backend"].startswith("pread")
    assert said["logits_hash"] == logits("qwen3moe", "pread")["logits_hash"]
    lines = [line for line in done.stderr.splitlines() if "io_uring" in line]
    assert len(lines) == 1 and ("not permitted" in lines[0] or "no io_uring" in lines[0])


def test_an_io_uring_that_was_asked_for_and_is_refused_is_an_error():
    done = run_without_uring(*words("qwen3moe", "uring"))
    assert done.returncode == 1
    assert "io_uring" in done.stderr and "--io pread" in done.stderr and done.stdout == ""
