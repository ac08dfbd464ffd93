"""Which runs a table averages: those that differ in their seed only."""

from enerf.reporting import grouping
from enerf.tasks.nerf import report


def run(psnr: float, **options) -> dict:
    protocol = {"width": 8, "height": 8, "factor": 1, "llffhold": 8}
    return {
        "scene": "toy",
        "method": "plain",
        "steps": 9,
        "protocol": protocol,
        "mean": {"psnr": psnr},
        "options": options,
    }


def rows(*runs) -> list[tuple[str, str]]:
    return [(row[0], row[2]) for row in report.table(runs, published=False)[1:]]


def test_runs_on_other_data_of_the_same_name_have_rows_of_their_own():
    some = [
        {**run(value, seed=0), "inputs": {"digest": digest}} for value, digest in ((10.0, "a" * 32), (12.0, "b" * 32))
    ]
    assert rows(*some) == [("plain (data aaaaaa)", "10.00"), ("plain (data bbbbbb)", "12.00")]
    assert rows(some[0], {**some[1], "inputs": some[0]["inputs"]}) == [("plain", "11.00")]


def test_what_is_not_the_result_of_one_training_on_its_own_data_says_so():
    changed = {**run(10.0, seed=0), "history": [{"step": 5, "options": {"lrate": [0.1, 0.2]}}]}
    other = {**run(12.0, seed=0), "eval_files": "1 of 3 files differs"}
    assert rows(changed, other) == [("plain (changed at step 5)", "10.00"), ("plain (measured on other data)", "12.00")]


def test_lengths_distinguish_and_seeds_are_counted_once():
    assert rows(run(10.0, seed=0, N_iters=9), run(12.0, seed=1, N_iters=10)) == [
        ("plain (N_iters 10)", "12.00"),
        ("plain (N_iters 9)", "10.00"),
    ]
    assert grouping.seeds([{"seed": 3}, {"seed": 3}, {"seed": 4}]) == 2


def test_seeds_are_averaged_and_other_learning_rates_have_rows_of_their_own():
    seeds = [run(10.0, lrate=0.1, seed=0, datadir="a"), run(12.0, lrate=0.1, seed=1, datadir="b")]
    rows = report.table(seeds, published=False)
    assert [(row[0], row[2]) for row in rows[1:]] == [("plain", "11.00")]
    rows = report.table([*seeds, run(20.0, lrate=0.5, seed=0)], published=False)
    assert [(row[0], row[2]) for row in rows[1:]] == [("plain (lrate 0.1)", "11.00"), ("plain (lrate 0.5)", "20.00")]
