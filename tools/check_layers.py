#!/usr/bin/env python3
"""Check that includes respect the floors: a file sees its own folder and lower floors, nothing else.

Prints one line per violation and exits 1 when there is any.
"""
import pathlib
import re
import sys

FLOORS = {
    "base": 0,
    "os": 1, "quant": 1,
    "gguf": 2, "io": 2, "kernels": 2, "text": 2,
    "experts": 3, "graph": 3,
    "models": 4, "exec": 4,
    "engine": 5,
    "server": 6, "cli": 6, "web": 6,
}
FRONTS = {"server", "cli", "web"}
FRONTS_SEE = {"base", "os"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def complaint(room, target):
    """Why a file of `room` may not include `target`, or None."""
    head, slash, _ = target.partition("/")
    if not slash:
        return "is not path-qualified"
    if head == "sluice" or head == room:
        return None
    if head not in FLOORS:
        return f"names no folder of the design: {head}/"
    if room in FRONTS and head not in FRONTS_SEE:
        return f"{room} sees only include/sluice, base and os"
    if FLOORS[head] >= FLOORS[room]:
        return f"{room} (floor {FLOORS[room]}) must not see {head} (floor {FLOORS[head]})"
    return None


def includes_of(path):
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1)


def check(root):
    """All violations below `root`, as lines of text."""
    found = []
    for path in sorted(root.glob("src/**/*")):
        if path.suffix not in {".c", ".h", ".cu", ".inc"}:
            continue
        relative = path.relative_to(root)
        room = relative.parts[1]
        if room not in FLOORS:
            found.append(f"{relative}: folder src/{room} is not in the design")
            continue
        for number, target in includes_of(path):
            reason = complaint(room, target)
            if reason:
                found.append(f'{relative}:{number}: #include "{target}": {reason}')
    for path in sorted(root.glob("include/**/*.h")):
        for number, target in includes_of(path):
            if not target.startswith("sluice/"):
                found.append(f'{path.relative_to(root)}:{number}: #include "{target}": '
                             "an installed header sees installed headers only")
    return found


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    found = check(root)
    print("\n".join(found) if found else "check_layers: every include goes down")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
