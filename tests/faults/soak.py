"""Memory of long runs: a radiance field and a shape that save, evaluate, render and log often.

The resident memory is measured every second, with that of the background processes. The slope of the last two thirds
must be within its noise, three standard errors, or below 5 MiB per hour. Runs of less than ten minutes are not judged:
allocators have not settled by then.
"""

import re
import shutil
import signal
import statistics
import time
from itertools import pairwise
from pathlib import Path

from tests.faults import cases, processes
from tests.faults.cases import Case
from tests.faults.findings import Findings
from tests.faults.processes import Child

MIB = float(1 << 20)
BLOCKS = 20  # the standard error is that of the means of so many blocks, since neighboring values are not independent
JUDGED = 10.0  # minutes
OFTEN = "--i_weights 200 --i_eval 50 --i_img 40 --i_spectrum 30 --i_print 10 --checkpoint_minutes 0.05 --no_final_eval"
SOAKED = (
    Case("nerf fast", f"{cases.NERF} {cases.GRID} {OFTEN} --i_testset 500 --i_video 2000 --N_iters 100000000", 0),
    Case(
        "shape background",
        f"{cases.SHAPE} --background process --pool 2048 --pool_uses 2 --hash_levels 4 --hash_log2_entries 12 "
        f"{OFTEN.replace('--i_img 40 ', '')} --N_iters 100000000",
        0,
    ),
)


def campaign(work: Path, data: Path, pattern: str, minutes: float) -> Findings:
    """Train all runs at once for so many minutes."""
    found, children = Findings("soak", "samples of memory"), {}
    for case in (each for each in SOAKED if re.search(pattern, each.name)):
        place = work / case.name.replace(" ", "_")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        words = [*case.words(data), "--max_seconds", str(60 * minutes), "--checkpoint_minutes", "0.05"]
        children[case.name] = Child(words, place)
    series = watch(children, 60 * minutes, found)
    for name, child in children.items():
        child.send(signal.SIGTERM)
        ended = child.wait()
        found.fault(name, ended.faults(0, 130))
        slope, error = fitted(series[name])
        peak = max(value for _, value in series[name]) / MIB
        found.figures[name] = f"{slope:+.2f} ± {error:.2f} MiB/h of {peak:.0f} MiB"
        found.figures[f"{name}, details"] = {
            **{"slope_mib_per_hour": slope, "standard_error": error, "largest_mib": peak, "minutes": minutes},
            "series_mib": [
                [round(at), round(value / MIB, 2)] for at, value in series[name][:: max(1, len(series[name]) // 60)]
            ],
        }
        if minutes >= JUDGED and slope > 3 * error and slope > 5.0:
            found.fault(name, [f"the memory grows: {slope:.1f} ± {error:.1f} MiB/h"])
    return found


def watch(children: dict[str, Child], seconds: float, found: Findings) -> dict[str, list[tuple[float, float]]]:
    """Seconds and bytes of memory of each run, until all have ended or the time is up."""
    series: dict[str, list[tuple[float, float]]] = {name: [] for name in children}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for name, child in children.items():
            if child.is_running():
                used = sum(map(processes.memory, (child.pid, *child.workers())))
                series[name].append((time.monotonic() - began, float(used)))
                found.count(name, "samples")
        time.sleep(1.0)
    return series


def fitted(series: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope of the last two thirds in MiB per hour, and its standard error, of the means of blocks.

    The slope is the median of those between all pairs of blocks (Theil and Sen): what grows steadily counts, a single
    step of an allocator does not.

    >>> fitted([(float(i), 3600.0 * MIB + i * MIB) for i in range(300)])
    (3600.0, 0.0)
    >>> fitted([(float(i), (300 + 4 * (i > 1500)) * MIB) for i in range(3600)])[0]
    0.0
    """
    begin, end = series[0][0] + (series[-1][0] - series[0][0]) / 3, series[-1][0]
    cuts = [begin + (end - begin) * i / BLOCKS for i in range(BLOCKS + 1)]  # equal in time: a busy machine takes fewer
    every = [[each for each in series if low < each[0] <= high] for low, high in pairwise(cuts)]
    blocks = [block for block in every if block]
    hours = [statistics.fmean(at for at, _ in block) / 3600 for block in blocks]
    mib = [statistics.fmean(value for _, value in block) / MIB for block in blocks]
    if len(blocks) < 3:
        return 0.0, 0.0
    ahead = [(i, j) for j in range(len(blocks)) for i in range(j)]
    slope = statistics.median((mib[j] - mib[i]) / (hours[j] - hours[i]) for i, j in ahead)
    start = statistics.median(y - slope * x for x, y in zip(hours, mib, strict=True))
    rest = sum((y - start - slope * x) ** 2 for x, y in zip(hours, mib, strict=True)) / (len(blocks) - 2)
    center = statistics.fmean(hours)
    error = (rest / sum((x - center) ** 2 for x in hours)) ** 0.5
    return round(slope, 6), round(error, 6)
