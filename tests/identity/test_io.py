"""The same bits with every way to read the experts, also where the system gives no io_uring."""
import ctypes
import functools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

import pytest

from support import gguf_file, program

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


@pytest.fixture
def spread_set(tmp_path):
    """A split set whose second part is a link to another device; the folder there."""
    memory = pathlib.Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no second device to write to")
    folder = pathlib.Path(tempfile.mkdtemp(dir=memory, prefix="sluice-"))
    parts = gguf_file.write_parts(gguf_file.read(program.GOLDEN / "qwen3moe.gguf"), str(tmp_path / "set"), 3)
    shutil.move(parts[1], folder / "second")
    os.symlink(folder / "second", parts[1])
    yield parts[0], folder
    shutil.rmtree(folder)


def test_a_split_set_may_lie_on_several_devices(spread_set):
    first, folder = spread_set
    expected = logits("qwen3moe", "pread")["logits_hash"]
    for backend in ("pread", "auto"):
        command = ("logits", "-m", first, "--tokens", TOKENS, "--decode", "--io", backend)
        said = program.run_json(*command, "--mem", program.floor_bytes(*command))
        assert said["logits_hash"] == expected and said["expert_misses"] > 20
    (folder / "second").unlink()
    ended = program.run("logits", "-m", first, "--tokens", TOKENS, code=1)
    assert "set-00002-of-00003.gguf: this is part 2 of 3 of the model and does not exist" in ended.err


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
