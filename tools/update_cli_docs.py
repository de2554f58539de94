#!/usr/bin/env python3
"""update_cli_docs.py [PROGRAM]: put the help of every command into docs/cli.md, between its headings and the next."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"
BLOCK = re.compile(r"(^## (\w+)\n\n)```\n.*?^```\n", re.MULTILINE | re.DOTALL)


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build" / "sluice")

    def fill(match):
        done = subprocess.run([program, match[2], "--help"], capture_output=True, text=True, check=True)
        return f"{match[1]}```\n{done.stdout}```\n"

    PAGE.write_text(BLOCK.sub(fill, PAGE.read_text()))


if __name__ == "__main__":
    main()
