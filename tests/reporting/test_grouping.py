"""Which runs a table averages: those that differ in their seed only."""

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


def test_seeds_are_averaged_and_other_learning_rates_have_rows_of_their_own():
    seeds = [run(10.0, lrate=0.1, seed=0, datadir="a"), run(12.0, lrate=0.1, seed=1, datadir="b")]
    rows = report.table(seeds, published=False)
    assert [(row[0], row[2]) for row in rows[1:]] == [("plain", "11.00")]
    rows = report.table([*seeds, run(20.0, lrate=0.5, seed=0)], published=False)
    assert [(row[0], row[2]) for row in rows[1:]] == [("plain (lrate 0.1)", "11.00"), ("plain (lrate 0.5)", "20.00")]
