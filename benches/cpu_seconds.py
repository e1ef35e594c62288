#!/usr/bin/env python3
"""Two builds of a benchmark in turns: CPU seconds of each (getrusage), medians and their ratio.

    python3 benches/cpu_seconds.py BEFORE AFTER RUNS [ARGUMENT...]

BEFORE and AFTER are executables, such as target/release/deps/engine-<hash>; arguments go to both.
"""

import os
import statistics
import sys


def cpu_seconds(command):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execv(command[0], command)
    _, status, used = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"{command[0]} ended with status {status}")
    return used.ru_utime + used.ru_stime


def main():
    builds, runs, arguments = sys.argv[1:3], int(sys.argv[3]), sys.argv[4:]
    seconds = {build: [] for build in builds}
    for run in range(runs):
        # Now the one first, now the other.
        for build in builds if run % 2 == 0 else builds[::-1]:
            seconds[build].append(cpu_seconds([build, *arguments]))
    before, after = (statistics.median(seconds[build]) for build in builds)
    for build in builds:
        print(build, " ".join(f"{s:.2f}" for s in sorted(seconds[build])))
    print(f"medians of {runs}: {before:.2f} s, {after:.2f} s, ratio {after / before:.3f}")


main()
