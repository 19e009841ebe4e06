"""The machine and the versions of a run."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import batchify
from tests.bench.subjects import versions


def about():
    """Return the date, the machine and the versions."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} x {_processor()}",
        "batchify": batchify.__version__,
        **versions(),
    }


def _processor():
    known = Path("/proc/cpuinfo")
    entries = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    names = [entry.partition(":")[2].strip() for entry in entries if entry.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
