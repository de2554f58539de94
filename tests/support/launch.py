"""Run a program below a process of next to no memory, so that the kernel's peak for it is its own.

    launch.py REPORT_FD PROCS_FILE PROGRAM ARGUMENT...

The peak that wait4 reports begins with what the process held before exec: a child of a test runner would carry the
runner's memory. PROCS_FILE is the cgroup.procs file of the cgroup to run in, or "-". The report is one line: wait status,
peak in KiB, this launcher's own peak in KiB.
"""
import os
import signal
import sys


def main():
    report, procs, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    os.set_inheritable(report, False)
    child = os.fork()
    if child == 0:
        if procs != "-":
            with open(procs, "w") as file:
                file.write(str(os.getpid()))
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status, usage = os.wait4(child, 0)
    with open("/proc/self/status") as file:
        own = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    os.write(report, f"{status} {usage.ru_maxrss} {own}\n".encode())


main()
