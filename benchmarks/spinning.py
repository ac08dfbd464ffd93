"""Steps of a run with waiting OpenMP threads as they are by default and as enerf sets them, on idle and busy cores.

Both sides train one scene in turns, each in a fresh process, alone and beside processes that compute all the time.
The last line is the ratio of steps, enerf's setting to the default, for both.

    enerf generate scene --out data/demo
    python benchmarks/spinning.py --datadir data/demo --rounds 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from enerf.core import openmp
from enerf.engine import checkpoint
from enerf.reporting import tables

SIDES = ("default", "enerf")


def steps(options: argparse.Namespace, side: str, folder: Path) -> int:
    """Steps of a run of ``options.seconds`` in a fresh process."""
    environment = {k: v for k, v in os.environ.items() if k not in (openmp.POLICY, *openmp.SPIN)}
    if side == "default":  # what the runtimes do without a setting; enerf sets nothing that is set
        environment |= {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
    words = ["--config", options.config, "--datadir", options.datadir, "--factor", str(options.factor)]
    words += ["--basedir", str(folder), "--expname", side, "--max_seconds", str(options.seconds), "--no_reload"]
    words += ["--no_final_eval", "--i_eval", "0", "--no_pose_check", "--device", "cpu"]
    script = Path(__file__).resolve().parent.parent / "scripts" / "train_nerf.py"
    subprocess.run([sys.executable, str(script), *words], check=True, env=environment, capture_output=True)
    return int(checkpoint.newest(folder / side, ["nerf"])[0]["step"])


def main() -> None:
    """Print the table and the ratios."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--datadir", required=True, help="a forward-facing scene")
    reader.add_argument("--factor", type=int, default=1)
    reader.add_argument("--config", default="fast/fern", help="configuration; default: fast/fern")
    reader.add_argument("--seconds", type=float, default=15.0, help="of training a run; default: 15")
    reader.add_argument("--rounds", type=int, default=3)
    reader.add_argument("--busy", type=int, default=3, help="processes that compute beside the run; default: 3")
    options = reader.parse_args()
    rows = [["processes beside", *SIDES, "ratio"]]
    ratios = []
    for busy in (0, options.busy):
        found: dict[str, list[int]] = {side: [] for side in SIDES}
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            time.sleep(0.2 * busy)
            for k in range(options.rounds):
                for side in SIDES[:: 1 if k % 2 == 0 else -1]:
                    with tempfile.TemporaryDirectory() as folder:
                        found[side].append(steps(options, side, Path(folder)))
        finally:
            for each in others:
                each.kill()
                each.wait()
        ratio = statistics.median(b / a for a, b in zip(found["default"], found["enerf"], strict=True))
        ratios.append(round(ratio, 2))
        rows.append([str(busy), *(", ".join(map(str, found[side])) for side in SIDES), f"{ratio:.2f}"])
    print(tables.as_text(rows))
    print(json.dumps({"ratio idle": ratios[0], "ratio busy": ratios[1]}))


if __name__ == "__main__":
    main()
