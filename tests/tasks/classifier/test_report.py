"""Tests of tables and curves of classifier runs."""

import copy
import csv
import io
from typing import Any

import pytest

from enerf.reporting import tables
from enerf.tasks.classifier import presentation
from enerf.tasks.classifier import report as classifier_report


def _run(method="bn", seed=0, accuracy=70.0, **more) -> dict[str, Any]:
    found = {
        **{"dataset": "cifar-10-batches-bin", "note": "", "model": "DenseNet-BC-100-12", "method": method},
        **{"epochs": 20.0, "steps_an_epoch": 10, "seed": seed, "step_ms": 12.34, "sparsity": 0.0},
        "test": {"accuracy": accuracy, "loss": 1.2345, "images": 100},
        "fit": {"accuracy": accuracy + 10, "loss": 0.5, "images": 100},
        "kappa": {"median": 30.0 + seed, "largest": 1e4, "layers": 99},
        "protocol": {"classes": 10},
        "curve": [[10 * e, 1.0 * e, accuracy * e / 20, 2.0 - e / 20, 80.0, 1.5 - e / 20, 30.0 + e] for e in range(21)],
    }
    return {**found, **more}


def _columns(rows):
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


# the table


def test_runs_of_the_same_images_network_and_method_are_averaged_over_seeds():
    runs = [_run(accuracy=70.0), _run("bn+e", accuracy=80.0), _run(seed=1, accuracy=72.0)]
    plain, other = _columns(classifier_report.table(runs))
    assert (plain["images"], plain["network"], plain["method"]) == ("cifar-10-batches-bin", "DenseNet-BC-100-12", "bn")
    assert plain["test [%]"] == "71.00 ± 1.41"
    assert plain["train [%]"] == "81.00 ± 1.41"
    assert (plain["test loss"], plain["train loss"]) == ("1.234 ± 0.000", "0.500 ± 0.000")
    assert (plain["median κ"], plain["largest κ"], plain["step [ms]"]) == ("30.5 ± 0.7", "10000 ± 0", "12.3 ± 0.0")
    assert (plain["learned"], plain["epochs"]) == ("2/2", "20")
    assert (other["method"], other["test [%]"], other["learned"]) == ("bn+e", "80.00", "1/1")


def test_other_images_networks_and_names_of_variants_are_distinguished():
    others = [{}, {"dataset": "idx"}, {"note": "JPEG, lossy"}, {"model": "Inception"}, {"arm": "bn+e@0.01"}]
    rows = _columns(classifier_report.table([_run(**more) for more in others]))
    assert [row["images"] for row in rows[1:3]] == ["idx", "cifar-10-batches-bin (JPEG, lossy)"]
    assert [row["method"] for row in rows] == ["bn"] * 4 + ["bn+e@0.01"]
    assert len(rows) == len(others)


def test_epochs_of_different_lengths_are_told_from_shortest_to_longest():
    (row,) = _columns(classifier_report.table([_run(epochs=e) for e in (100.0, 9.5, 20.0)]))
    assert row["epochs"] == "9.5–100"


@pytest.mark.parametrize("kappa", [{}, None, {"median": None, "largest": None}])
def test_what_is_missing_is_a_dash_and_no_zero(kappa):
    (row,) = _columns(classifier_report.table([_run(), _run(seed=1, kappa=kappa)]))
    assert row["median κ"] == row["largest κ"] == "–"
    assert row["test [%]"] == "70.00 ± 0.00"


def test_zeros_have_a_column_only_where_there_are_any():
    assert "zeros [%]" not in classifier_report.table([_run(), _run("bn+e")])[0]
    unknown = _run("old")
    del unknown["sparsity"]
    rows = _columns(classifier_report.table([_run(sparsity=0.25), _run(seed=1, sparsity=0.5), _run("bn+e"), unknown]))
    assert [row["zeros [%]"] for row in rows] == ["37.5 ± 17.7", "0.0", "–"]


@pytest.mark.parametrize(
    ("classes", "accuracy", "learned"),
    [(10, 20.0, True), (10, 19.9, False), (1000, 0.2, True), (100, 1.9, False), (2, 75.0, True), (2, 74.9, False)],
)
def test_to_have_learned_is_twice_guessing_or_half_way_to_all(classes: int, accuracy: float, learned: bool):
    run = _run(accuracy=accuracy, protocol={"classes": classes})
    assert classifier_report.has_learned(run) is learned
    (row,) = _columns(classifier_report.table([run, _run(seed=1, accuracy=99.0, protocol={"classes": classes})]))
    assert row["learned"] == f"{1 + learned}/2"


def test_rows_are_a_table_in_every_form():
    for rows in (classifier_report.table([_run(), _run("bn+e")]), classifier_report.published([_run()])):
        assert len({len(row) for row in rows}) == 1
        assert list(csv.reader(io.StringIO(tables.as_csv(rows)))) == rows
        assert tables.as_markdown(rows).count("\n") == len(rows)
        assert rows[-1][2] in tables.as_text(rows)
    assert len(classifier_report.table([])) == len(classifier_report.published([])) == 1


# published figures


def _published(dataset: str, classes: int, model: str) -> dict[str, str]:
    rows = classifier_report.published([_run(dataset=dataset, model=model, protocol={"classes": classes})])
    assert len({(images, network) for images, network, *_ in rows[1:]}) <= 1
    return {method: value for _, _, method, value in rows[1:]}


@pytest.mark.parametrize(
    ("dataset", "classes", "model", "images"),
    [
        ("cifar-10-batches-bin", 10, "DenseNet-BC-100-12", "CIFAR-10"),
        ("cifar-10-batches-py", 10, "DenseNet-BC-22-8", "CIFAR-10"),
        ("cifar10_jpeg", 10, "Inception", "CIFAR-10"),
        ("CIFAR10", 10, "Inception, width 0.5", "CIFAR-10"),
        ("cifar-100-python", 100, "DenseNet-BC-100-12", "CIFAR-100"),
        ("cifar100", 100, "Inception", "CIFAR-100"),
        ("imagenet", 1000, "ViT-B/16", "ImageNet"),
        ("ImageNet_2012", 1000, "ViT-B/16", "ImageNet"),
    ],
)
def test_published_figures_are_found_by_the_name_of_a_folder(dataset: str, classes: int, model: str, images: str):
    ((_, figures),) = [
        found
        for found in classifier_report.PUBLISHED.items()
        if model.startswith(found[0][0]) and found[0][1] == images
    ]
    assert {method: float(value) for method, value in _published(dataset, classes, model).items()} == figures


@pytest.mark.parametrize(
    ("dataset", "classes", "model"),
    [
        ("cifar-10-batches-bin", 10, "ResNet-18"),
        ("cifar-10-batches-bin", 10, "ViT-B/4"),
        ("cifar-100-python", 20, "Inception"),
        ("cifar100_animals", 10, "Inception"),
        ("imagenette2-160", 10, "ViT-B/16"),
        ("tiny-imagenet-200", 200, "ViT-B/16"),
        ("imagenet", 1000, "ViT-S/16"),
        ("fashion", 10, "DenseNet-BC-100-12"),
        ("", 10, "Inception"),
    ],
)
def test_other_images_and_networks_have_no_published_figures(dataset: str, classes: int, model: str):
    assert _published(dataset, classes, model) == {}


def test_published_figures_stand_once_whatever_the_runs():
    runs = [_run(), _run(seed=1), _run("bn+e"), _run(dataset="idx"), _run(note="JPEG, lossy")]
    assert classifier_report.published(runs) == classifier_report.published(runs[:1])
    both = classifier_report.published([_run(), _run(model="Inception")])
    assert {row[1] for row in both[1:]} == {"DenseNet", "Inception"}


def test_nothing_is_changed_by_tabling():
    runs = [_run(), _run(seed=1), _run("bn+e", sparsity=0.1)]
    before = copy.deepcopy(runs)
    classifier_report.table(runs)
    classifier_report.published(runs)
    assert runs == before


# what differs from the published protocol


@pytest.mark.parametrize(
    ("run", "protocol", "expected"),
    [
        ({"epochs": 200}, {"optimiser": "sgd", "lrate": 1e-3, "batch": 128}, []),
        (
            {},
            {"optimiser": "adam", "lrate": 1e-3, "batch": 64},
            ["optimizer adam instead of sgd", "batch 64 instead of 128", "20 epochs instead of 200"],
        ),
        ({"model": "ViT-B/16", "dataset": "imagenet"}, {"optimiser": "adamw", "lrate": 3e-3, "classes": 1000}, []),
        ({"dataset": "figures"}, {"optimiser": "adam"}, []),  # no published results
    ],
)
def test_differences_are_those_from_the_protocol_of_the_network(run, protocol, expected):
    made = _run(**run)
    made["protocol"] = {"classes": 10, **protocol}
    assert presentation.differences(made) == expected
