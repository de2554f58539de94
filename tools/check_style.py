#!/usr/bin/env python3
"""Check sizes, banned calls, white space, unfinished-work words and, where clang-format-14 is installed, the format.

A file should stay under 800 lines and a function under 60 (150 in src/kernels). "About" is part of the rule: up to a
tenth above it for a file and a fifth for a function is a note, because cutting at exactly that line makes worse code than
it saves; more is an error.
Prints one line per finding and exits 1 on any error.
"""
import pathlib
import re
import shutil
import subprocess
import sys

FILE_LINES = 800
FUNCTION_LINES = 60
KERNEL_FUNCTION_LINES = 150
FILE_GRACE = 1.1
FUNCTION_GRACE = 1.2

TEXT_SUFFIXES = {".c", ".h", ".inc", ".cu", ".py", ".sh", ".md", ".build", ".yml", ".txt", ".html", ".js", ".css"}
TEXT_NAMES = {"Makefile", ".editorconfig", ".clang-format", ".clang-tidy", ".gitignore", "run"}
C_SUFFIXES = {".c", ".h", ".inc"}
# Texts that are test input keep every byte they have.
DATA_FOLDERS = ("tests/data/", "models/")

BANNED_EVERYWHERE = {
    "strcpy": "use a bounded copy or sl_text", "strcat": "use sl_text", "sprintf": "use snprintf",
    "vsprintf": "use vsnprintf", "gets": "use getline", "alloca": "use a buffer with a stated size",
    "getenv": "the environment is read by base/options.c alone",
}
BANNED_IN_LIBRARY = {
    "exit": "return a status", "_exit": "return a status", "_Exit": "return a status", "abort": "return a status",
    "printf": "the library never prints", "vprintf": "the library never prints", "puts": "the library never prints",
    "putchar": "the library never prints", "fprintf": "the library never prints",
    "perror": "the library never prints",
}
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" "DO", "FIX" "ME", "XX" "X", "HA" "CK"]) + r")\b")
COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(")


def tracked_files(root):
    """Files git knows or would add; without git, every file outside build directories."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root,
                                 check=True, capture_output=True).stdout.decode()
        names = [name for name in listing.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(root)) for path in root.rglob("*")
                 if not path.relative_to(root).parts[0].startswith("build") and ".git" not in path.parts]
    return sorted(name for name in names if (root / name).is_file() and is_text(name))


def is_text(name):
    path = pathlib.PurePosixPath(name)
    return (path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES) and not name.startswith(DATA_FOLDERS)


def blank_out(code):
    """The code with comments and literals replaced by spaces; line numbers stay."""
    return COMMENT_OR_STRING.sub(lambda match: re.sub(r"[^\n]", " ", match.group(0)), code)


def functions(lines):
    """(name, first line, length) of each function: bodies open and close with a brace in the first column."""
    opened = None
    for index, line in enumerate(lines):
        if line.startswith("{"):
            opened = index
        elif line.startswith("}") and opened is not None:
            head = " ".join(lines[max(0, opened - 6):opened])
            names = CALL.findall(head)
            yield (names[-1] if names else "?"), opened + 1, index - opened + 1
            opened = None


class Report:
    def __init__(self):
        self.errors = []
        self.notes = []

    def size(self, where, what, found, limit, grace):
        if found > limit * grace:
            self.errors.append(f"{where}: {what} has {found} lines; at most about {limit}")
        elif found > limit:
            self.notes.append(f"{where}: note: {what} has {found} lines; better under {limit}")


def check_text(name, text, report):
    if text and not text.endswith("\n"):
        report.errors.append(f"{name}: no newline at the end of the file")
    if text.endswith("\n\n"):
        report.errors.append(f"{name}: blank line at the end of the file")
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            report.errors.append(f"{name}:{number}: trailing blank")
        if "\t" in line and not name.endswith("Makefile"):
            report.errors.append(f"{name}:{number}: tab")
        if UNFINISHED.search(line):
            report.errors.append(f"{name}:{number}: a word that marks unfinished work")


def check_c(name, text, report):
    code = blank_out(text)
    lines = code.split("\n")
    report.size(name, "the file", len(lines) - 1, FILE_LINES, FILE_GRACE)
    limit = KERNEL_FUNCTION_LINES if name.startswith("src/kernels/") else FUNCTION_LINES
    for function, line, length in functions(lines):
        if function == "main" and name.startswith("tests/"):
            continue
        report.size(f"{name}:{line}", f"{function}()", length, limit, FUNCTION_GRACE)
    library = name.startswith("src/") and not name.startswith("src/cli/")
    for number, line in enumerate(lines, 1):
        for call in CALL.findall(line):
            reason = BANNED_EVERYWHERE.get(call)
            if reason is None and library:
                reason = BANNED_IN_LIBRARY.get(call)
            if reason and name.startswith(("src/", "include/")):
                report.errors.append(f"{name}:{number}: {call}(): {reason}")


def check_format(root, names, report):
    formatter = shutil.which("clang-format-14")
    if formatter is None:
        report.notes.append("check_style: note: clang-format-14 is not installed; the format was not checked")
        return
    if names:
        result = subprocess.run([formatter, "--dry-run", "--Werror", *names], cwd=root, capture_output=True, text=True,
                                check=False)
        wrong = {line.split(":")[0] for line in result.stderr.splitlines() if ": error: code should be" in line}
        report.errors += [f"{name}: run clang-format-14 -i on it" for name in sorted(wrong)]
        if result.returncode != 0 and not wrong:
            report.errors.append("clang-format-14: " + result.stderr.strip())


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    report = Report()
    formatted = []
    for name in tracked_files(root):
        try:
            text = (root / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            report.errors.append(f"{name}: not UTF-8")
            continue
        check_text(name, text, report)
        if pathlib.PurePosixPath(name).suffix in C_SUFFIXES:
            check_c(name, text, report)
            formatted.append(name)
    check_format(root, formatted, report)
    for line in report.notes + report.errors:
        print(line)
    print(f"check_style: {len(report.errors)} errors, {len(report.notes)} notes")
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
