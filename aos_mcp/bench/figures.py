"""What a benchmark prints: `{"machine": …, "figures": [{name, value, unit, baseline, baseline_value, ratio}]}`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number. `baseline` names the peer measured in the same run; None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    target: str
    """What the number should be, as the project promises it."""
    baseline: str | None = None
    baseline_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """Value over baseline."""
        return self.value / self.baseline_value if self.baseline_value else None

    def as_json(self) -> Mapping[str, object]:
        """Return the printed form."""
        return {**asdict(self), "ratio": self.ratio}


def machine() -> Mapping[str, object]:
    """Say what the figures were measured on."""
    return {
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used so far, in seconds; from /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process, in MiB; from /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return kib / 1024
