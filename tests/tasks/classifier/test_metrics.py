"""Tests of how often a classifier is right, against a slow count, image by image."""

import math

import pytest
import torch
from torch import Tensor

from enerf.datasets.labelled.dataset import InMemorySplit
from enerf.tasks.classifier import metrics as classifier_metrics


def split(n: int = 37, classes: int = 9, seed: int = 0) -> InMemorySplit:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return InMemorySplit(images, torch.randint(classes, (n,), generator=generator))


def network(classes: int = 9):
    """A linear map of the pixels that has not learned anything."""
    weight = torch.randn(48, classes, generator=torch.Generator().manual_seed(1)) / 48
    return lambda images: images.flatten(1).float() / 32 @ weight


def counted(answers, of: InMemorySplit, numbers: list[int]) -> tuple[float, float, float]:
    """Accuracy and top-5 accuracy in percent, and loss: a loop over images and classes."""
    right, among, loss = 0, 0, 0.0
    for i in numbers:
        logits = answers(of.images[i : i + 1])[0].double().tolist()
        own = logits[of.labels[i]]
        above = sum(other > own for other in logits)
        right += above == 0
        among += above < 5
        loss += math.log(sum(math.exp(other) for other in logits)) - own
    return 100 * right / len(numbers), 100 * among / len(numbers), loss / len(numbers)


def test_figures_are_those_of_a_count_image_by_image():
    found = classifier_metrics.measure(network(), split())
    right, among, loss = counted(network(), split(), list(range(37)))
    assert (found["accuracy"], found["top5"]) == (right, among)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["images"] == 37
    assert 0 < right < among < 100


def test_of_some_images_figures_are_those_of_them_alone():
    numbers = [30, 2, 2, 17]
    found = classifier_metrics.measure(network(), split(), torch.tensor(numbers))
    right, among, loss = counted(network(), split(), numbers)
    assert (found["accuracy"], found["top5"], found["images"]) == (right, among, 4)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(("classes", "has"), [(2, False), (5, False), (6, True)])
def test_top5_is_a_figure_only_where_there_are_more_than_five_classes(classes: int, has: bool):
    found = classifier_metrics.measure(network(classes), split(classes=classes))
    assert ("top5" in found) == has


@pytest.mark.parametrize("at_once", [1, 2, 36, 37, 1000])
def test_figures_do_not_depend_on_how_many_images_are_asked_for_at_once(at_once: int, monkeypatch):
    expected = classifier_metrics.measure(network(), split())
    monkeypatch.setattr(classifier_metrics, "IMAGES_PER_CALL", at_once)
    sizes: list[int] = []

    def answers(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return network()(images)

    found = classifier_metrics.measure(answers, split())
    assert sum(sizes) == 37
    assert max(sizes) == min(at_once, 37)
    assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)
    assert found == expected


def test_who_is_always_right_has_all_and_who_knows_nothing_has_the_loss_of_guessing():
    of = split()
    known = {image.numpy().tobytes(): label for image, label in zip(of.images, of.labels, strict=True)}

    def right(images: Tensor) -> Tensor:
        labels = torch.stack([known[image.numpy().tobytes()] for image in images])
        return 100 * torch.nn.functional.one_hot(labels, 9).double()

    assert classifier_metrics.measure(right, of) == {"accuracy": 100, "loss": 0, "images": 37, "top5": 100}
    ignorant = classifier_metrics.measure(lambda images: torch.zeros(len(images), 9), of)
    assert ignorant["loss"] == pytest.approx(math.log(9), rel=1e-6)


def test_images_are_asked_for_without_augmentation_and_nothing_is_learned():
    weight = torch.ones(48, 9, requires_grad=True)
    seen: list[Tensor] = []

    def answers(images: Tensor) -> Tensor:
        seen.append(images)
        logits = images.flatten(1).float() @ weight
        assert not logits.requires_grad
        return logits

    classifier_metrics.measure(answers, split())
    assert torch.equal(torch.cat(seen), split().images)


def test_logits_of_few_bits_are_summed_as_float32():
    found = classifier_metrics.measure(lambda images: network()(images).bfloat16(), split())
    exact = classifier_metrics.measure(lambda images: network()(images).bfloat16().float(), split())
    assert found == exact


# some of


@pytest.mark.parametrize("n", [1, 2, 5, 36, 37])
def test_some_are_different_in_order_always_the_same_and_as_many_as_asked_for(n: int):
    numbers = classifier_metrics.fixed_subset(split(), n).tolist()
    assert len(set(numbers)) == n
    assert numbers == sorted(numbers)
    assert set(numbers) <= set(range(37))
    assert numbers == classifier_metrics.fixed_subset(split(), n).tolist()


def test_some_of_labels_that_take_turns_have_all_of_them():
    labels = torch.arange(1000) % 10
    assert (
        len(
            labels[
                classifier_metrics.fixed_subset(
                    InMemorySplit(torch.zeros(1000, 1, 1, 1, dtype=torch.uint8), labels), 100
                )
            ].unique()
        )
        == 10
    )


@pytest.mark.parametrize("n", [0, 38, 10**9])
def test_none_or_too_many_are_all(n: int):
    assert classifier_metrics.fixed_subset(split(), n).tolist() == list(range(37))
