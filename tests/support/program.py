"""Runs the program under test."""
import atexit
import dataclasses
import functools
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "models"
DEMO = MODELS / "tales.gguf"
GOLDEN = ROOT / "tests" / "golden" / "models"
SHARED = ROOT.parent / "shared" / "data"

KIB, MIB = 1 << 10, 1 << 20


def binary():
    path = pathlib.Path(os.environ.get("SLUICE_BINARY", ROOT / "build" / "sluice")).resolve()
    if not path.exists():
        pytest.fail(f"{path} is missing: run 'make' first, or name the program in SLUICE_BINARY", pytrace=False)
    return str(path)


def environment():
    """The caller's without what sets the program's options."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}


def shared(name):
    """A file of the shared data folder; the test is skipped where there is none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@dataclasses.dataclass
class Ended:
    code: int  # exit status, or minus the signal
    out: str
    err: str
    peak_bytes: int = 0


def run(*arguments, code=0, text=None):
    """Run to the end and expect an exit status; None expects nothing."""
    feed = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run([binary(), *map(str, arguments)], env=environment(), capture_output=True, check=False,
                          encoding="utf-8", errors="surrogateescape", **feed)
    return _expect(Ended(done.returncode, done.stdout, done.stderr), arguments, code)


def _expect(ended, arguments, code):
    if code is not None:
        assert ended.code == code, f"sluice {' '.join(map(str, arguments))} ended with {ended.code}:\n{ended.err[-2000:]}"
    return ended


def run_json(*arguments):
    return json.loads(run(*arguments, "--json").out)


@functools.cache
def _launcher():
    """launch.c, compiled at first use: what starts a program to be measured must itself be small."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang-14")
    if compiler is None:
        pytest.skip("needs a C compiler for the launcher that measures")
    folder = tempfile.mkdtemp(prefix="sluice-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/launch"
    subprocess.run([compiler, "-O1", "-o", path, str(pathlib.Path(__file__).with_name("launch.c"))], check=True)
    return path


def run_measured(*arguments, code=0, procs="-"):
    """As run, with the kernel's figure for the highest resident memory; `procs` names the cgroup to run in."""
    launcher = _launcher()
    reading, writing = os.pipe()
    with os.fdopen(reading) as report:
        done = subprocess.run([launcher, str(writing), str(procs), binary(), *map(str, arguments)], env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
                              encoding="utf-8", errors="surrogateescape", pass_fds=(writing,), check=False)
        os.close(writing)
        line = report.readline().split()
    assert len(line) == 3, f"the launcher failed:\n{done.stderr}"
    status, peak, own = map(int, line)
    assert peak > own, f"the peak of {peak} KiB may be the launcher's own of {own} KiB"
    ended = Ended(os.waitstatus_to_exitcode(status), done.stdout, done.stderr, peak * KIB)
    return _expect(ended, arguments, code)


def floor_bytes(*arguments):
    """The smallest budget that works, as the program states it when it refuses 1 KiB."""
    return smallest_budget(run(*arguments, "--mem", "1K", code=1).err)


def smallest_budget(sentence):
    found = re.search(r"smallest budget that works\D*?([\d,]+) bytes", sentence)
    assert found, f"no smallest budget in: {sentence}"
    return int(found[1].replace(",", ""))


def cpu_has(*flags):
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return set(flags) <= set(line.split())


MASK_FLAGS = {"generic": (), "avx2": ("avx2", "fma", "f16c"),
              "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
              "amx": ("avx512f", "avx512_vnni", "amx_tile", "amx_int8"),
              "neon": ("asimd", "asimddp")}
# The instruction sets of this architecture.
MASKS = ("generic", "neon") if platform.machine() == "aarch64" else ("generic", "avx2", "avx512", "amx")


def need_mask(mask):
    missing = [flag for flag in MASK_FLAGS[mask] if not cpu_has(flag)]
    if missing:
        pytest.skip(f"this processor has no {', '.join(missing)}")


def forget_cached(path):
    """Take a file out of the page cache, so that the next reader pays for it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
