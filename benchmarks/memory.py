"""How much memory this process has held at its peak."""

from pathlib import Path


def peak_resident():
    """Return the peak resident memory of this process, in bytes."""
    # Not `ru_maxrss`, which begins at what the parent process had.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024
