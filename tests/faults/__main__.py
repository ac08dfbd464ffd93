"""Command line of the fault campaign; see the package's description."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.findings import Findings

PARTS = {"kills": 200, "disk": 200, "writers": 30, "damage": 300, "sweeps": 40, "soak": 0}


def main() -> int:
    """Run parts of the campaign; returns 1 if anything was wrong."""
    chosen = _arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tests.faults import cases, findings, processes

    processes.preload()
    with tempfile.TemporaryDirectory(prefix="enerf_faults_") as temporary:
        work = (chosen.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        data = cases.write_data(work / "data")
        found = []
        for part in PARTS if chosen.part == "all" else (chosen.part,):
            found.append(_run(part, work / part, data, chosen))
            print(f"\n{found[-1].table()}\n\n{found[-1].summary()}", flush=True)
            if chosen.json is not None:
                findings.write(chosen.json, found)
    return int(any(each.wrong for each in found))


def _run(part: str, work: Path, data: Path, chosen: argparse.Namespace) -> "Findings":
    from tests.faults import damage, disk, kills, soak, sweeps, writers

    if part == "soak":
        return soak.campaign(work, data, chosen.only, chosen.minutes)
    modules = {"kills": kills, "disk": disk, "writers": writers, "damage": damage, "sweeps": sweeps}
    campaign = modules[part].campaign
    found: Findings = campaign(work, data, chosen.only, chosen.count or PARTS[part], chosen.seed)
    return found


def _arguments() -> argparse.Namespace:
    reader = argparse.ArgumentParser(prog="python -m tests.faults", description="Fault campaign.")
    reader.add_argument("part", choices=(*PARTS, "all"))
    reader.add_argument("--count", type=int, help=f"how often; default: {PARTS}")
    reader.add_argument("--minutes", type=float, default=60.0, help="length of the soak; default: 60")
    reader.add_argument("--seed", type=int, default=0)
    reader.add_argument("--only", default="", metavar="REGEX", help="names of the cases; default: all")
    reader.add_argument("--work", type=Path, help="working folder, which is kept; default: a temporary one")
    reader.add_argument("--json", type=Path, help="file for the figures")
    return reader.parse_args()


if __name__ == "__main__":
    sys.exit(main())
