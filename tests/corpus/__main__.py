"""The corpus of hostile inputs: ``python -m tests.corpus [--only REGEX] [--sample N --seed S]``, from the repository.

Each case runs one of the scripts on an input made for it. What counts as a finding is said in ``runner.Verdict``. The
exit code is 1 if there is any. One core; a case takes about half a second.
"""

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from tests.corpus import runner
from tests.corpus.all_cases import CASES
from tests.corpus.registry import Case


def main() -> int:
    """Run the chosen cases, print a line for each and a summary; return the exit code."""
    args = _parser().parse_args()
    cases = chosen(args.only, args.sample, args.seed)
    if args.list:
        print("\n".join(f"{case.expect:8}{case.name}" for case in cases))
        return 0
    work = Path(args.work) if args.work else Path(tempfile.mkdtemp(prefix="enerf-corpus-"))
    runner.prepare(work, args.limit)
    began, verdicts = time.monotonic(), []
    for case in cases:
        verdicts.append(runner.judge(case, work, args.limit, args.keep))
        if verdicts[-1].marks or not args.quiet:
            print(verdicts[-1].line(), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
    found = [verdict for verdict in verdicts if verdict.marks]
    counts = Counter(mark for verdict in found for mark in verdict.marks)
    listed = ", ".join(f"{n} {mark}" for mark, n in counts.most_common()) or "none"
    print(f"{len(verdicts)} cases in {time.monotonic() - began:.0f} s, {len(found)} with findings: {listed}")
    return 1 if found else 0


def chosen(only: str, sample: int, seed: int) -> list[Case]:
    """Return the cases whose names match, or a random sample of them, in the order of the corpus."""
    matching = [case for case in CASES if re.search(only, case.name)]
    if not 0 < sample < len(matching):
        return matching
    kept = {case.name for case in random.Random(seed).sample(matching, sample)}
    return [case for case in matching if case.name in kept]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose names match")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="a random sample of N of them; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a case may take; default: 60")
    parser.add_argument("--work", default="", help="folder for inputs, which are used again; default: a new one")
    parser.add_argument("--json", default="", metavar="FILE", help="write the verdicts to a file")
    parser.add_argument("--keep", action="store_true", help="keep the folders of cases without findings")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--quiet", action="store_true", help="print findings only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
