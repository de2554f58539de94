"""A fresh memory cgroup, version 1 or 2, for one run."""
import os
import pathlib

import pytest

V1 = pathlib.Path("/sys/fs/cgroup/memory")
V2 = pathlib.Path("/sys/fs/cgroup")


class MemoryCgroup:
    """Use as a context: created with a limit in bytes, removed at the end. Skips the test where it cannot be created."""

    _count = 0

    def __init__(self, limit):
        self.limit = limit

    def __enter__(self):
        MemoryCgroup._count += 1
        name = f"sluice-test.{os.getpid()}.{MemoryCgroup._count}"
        self.version = 1 if (V1 / "memory.limit_in_bytes").exists() else 2
        if self.version == 2 and "memory" not in _words(V2 / "cgroup.subtree_control"):
            pytest.skip("no memory controller for a cgroup of the test's own")
        self.path = (V1 if self.version == 1 else V2) / name
        try:
            self.path.mkdir()
        except OSError as problem:
            pytest.skip(f"cannot create a memory cgroup: {problem}")
        try:
            self._write("memory.limit_in_bytes" if self.version == 1 else "memory.max", self.limit)
            if (self.path / "memory.swap.max").exists():
                self._write("memory.swap.max", 0)
        except BaseException:
            self.path.rmdir()
            raise
        return self

    def __exit__(self, *_):
        if self.version == 1:
            self._write("memory.force_empty", 0)
        self.path.rmdir()

    def _write(self, name, value):
        (self.path / name).write_text(str(value))

    @property
    def procs(self):
        return self.path / "cgroup.procs"

    def peak_bytes(self):
        file = self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        if not file.exists():
            pytest.skip(f"this kernel has no {file.name}")
        return int(file.read_text())

    def limit_hits(self):
        """How often an allocation ran into the limit and had to reclaim first."""
        if self.version == 1:
            return int((self.path / "memory.failcnt").read_text())
        return self._event("max")

    def oom_kills(self):
        if self.version == 1:
            return int(dict(_pairs(self.path / "memory.oom_control")).get("oom_kill", 0))
        return self._event("oom_kill")

    def _event(self, name):
        return int(dict(_pairs(self.path / "memory.events"))[name])


def _words(path):
    try:
        return path.read_text().split()
    except OSError:
        return []


def _pairs(path):
    return [line.split() for line in path.read_text().splitlines()]
