"""Tests of a classifier's step: its images, its loss and its gradients, against plain arithmetic and plain autograd."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from enerf.core import device
from enerf.datasets.labelled import augmentation
from enerf.tasks.classifier import build as classifier_build
from enerf.tasks.classifier import optimizers as classifier_optimizers
from enerf.tasks.classifier import step as classifier_step
from enerf.tasks.classifier.step import ClassifierReport, Targets

CPU = torch.device("cpu")
TEN = Targets(10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(treatment: str = "", **options: str) -> nn.Module:
    """A small DenseNet with its head, in training mode and float64, in memory as runs have it."""
    model = classifier_build.network("densenet", classes=10, channels=3, size=8, norm="bn", seed=0, width=0.4, depth=10)
    classifier_build.condition(model, treatment, **options)
    return model.double().to(memory_format=torch.channels_last).train()


def batch(n: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    images = torch.randn(n, 3, 8, 8, generator=generator(), dtype=torch.float64).to(dtype)
    return images.contiguous(memory_format=torch.channels_last), torch.randint(10, (n,), generator=generator(1))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_autograd(model: nn.Module, loss) -> dict[str, Tensor]:
    """The gradients that plain autograd gives a copy, for a loss of the network."""
    twin = copy.deepcopy(model)
    loss(twin).backward()
    return gradients(twin)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], rel: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    scale = max(g.abs().max() for g in expected.values())
    for name, exact in expected.items():
        assert (found[name] - exact).abs().max() <= rel * scale, name


# images


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shifted_and_scaled_channel_by_channel(channels: int):
    images = torch.randint(256, (4, channels, 5, 6), generator=generator(), dtype=torch.uint8)
    mean, std = [0.2, 0.5, 0.7][:channels], [0.1, 0.25, 1 / 255][:channels]
    found = classifier_step.standardize(images, mean, std, CPU)
    expected = torch.empty(images.shape, dtype=torch.float64)
    for c in range(channels):
        expected[:, c] = (images[:, c].double() / 255 - mean[c]) / std[c]
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=2e-5)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=device.image_order(found.device))


def test_standardised_by_their_own_figures_images_have_mean_0_and_deviation_1():
    images = torch.randint(256, (50, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    numbers = images.double() / 255
    mean, std = numbers.mean((0, 2, 3)).tolist(), numbers.std((0, 2, 3), correction=0).tolist()
    found = classifier_step.standardize(images, mean, std, CPU).double()
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))


# loss and gradients


def test_a_step_is_plain_cross_entropy_and_its_gradient():
    model, (images, labels) = network(), batch()
    twin = copy.deepcopy(model)
    logits = twin(images)
    exact = (logits.logsumexp(1) - logits[torch.arange(7), labels]).mean()
    expected = by_autograd(model, lambda of: functional.cross_entropy(of(images), labels))
    report = classifier_step.gradient_step(model, images, labels, TEN)
    assert report.loss == pytest.approx(exact.item(), rel=1e-6)
    assert (report.correct, report.images) == (int((logits.argmax(1) == labels).sum()), 7)
    assert_close(gradients(model), expected)


def test_gradients_are_added_to_those_that_are_there():
    model, (images, labels) = network("e"), batch()
    classifier_step.gradient_step(model, images, labels, TEN)
    once = gradients(model)
    classifier_step.gradient_step(model, images, labels, TEN)
    assert_close(gradients(model), {name: 2 * g for name, g in once.items()})


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_spreads_its_share_over_all_classes(smoothing: float):
    model, (images, labels) = network(), batch()
    target = torch.full((7, 10), smoothing / 10, dtype=torch.float64)
    target[torch.arange(7), labels] += 1 - smoothing
    expected = by_autograd(model, lambda of: -(target * of(images).log_softmax(1)).sum(1).mean())
    classifier_step.gradient_step(model, images, labels, Targets(10, smoothing))
    assert_close(gradients(model), expected)


def test_mixup_mixes_images_and_targets_by_one_share():
    model, (images, labels) = network(), batch()
    mixed, soft = augmentation.mixup(images, labels, 10, 0.8, generator(5))
    assert not torch.equal(mixed, images)
    expected = by_autograd(model, lambda of: -(soft * of(mixed).log_softmax(1)).sum(1).mean())
    report = classifier_step.gradient_step(model, images, labels, Targets(10, 0.0, 0.8), generator=generator(5))
    assert_close(gradients(model), expected)
    assert report.images == 7


def test_without_smoothing_and_mixing_no_random_number_is_drawn():
    images, labels = batch()
    one, other, drawn = network(), network(), generator(5)
    before = drawn.get_state()
    classifier_step.gradient_step(one, images, labels, TEN)
    classifier_step.gradient_step(other, images, labels, Targets(10, 0.0, 0.0), generator=drawn)
    assert all(torch.equal(a, b) for a, b in zip(gradients(one).values(), gradients(other).values(), strict=True))
    assert torch.equal(drawn.get_state(), before)


@pytest.mark.parametrize("treatment", ["", "w", "ws", "e", "bnp"])
def test_the_l1_penalty_adds_its_strength_times_the_signs(treatment: str):
    model, (images, labels) = network(treatment), batch()
    twin = copy.deepcopy(model)
    report = classifier_step.gradient_step(
        model, images, labels, TEN, l1=0.01, penalized=classifier_optimizers.regularized_weights(model)
    )
    plain = classifier_step.gradient_step(twin, images, labels, TEN)
    for p, q in zip(
        classifier_optimizers.regularized_weights(model), classifier_optimizers.regularized_weights(twin), strict=True
    ):
        q.grad += 0.01 * q.detach().sign()
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)
    assert_close(gradients(model), gradients(twin), 1e-12)
    size = sum(p.abs().sum().item() for p in classifier_optimizers.regularized_weights(model))
    assert report.loss == pytest.approx(plain.loss + 0.01 * size, rel=1e-6)
    assert report.correct == plain.correct


CONDITIONED = [("w", {}), ("ws", {}), ("e", {}), ("e", {"scale": "learned"}), ("e", {"gradient": "detached"})]


@pytest.mark.parametrize(("treatment", "options"), CONDITIONED, ids=str)
def test_a_step_of_a_conditioned_network_is_that_of_weights_computed_at_every_use(treatment: str, options: dict):
    model, (images, labels) = network(treatment, **options), batch()
    twin = copy.deepcopy(model)
    expected = by_autograd(model, lambda of: functional.cross_entropy(of(images).float(), labels))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    classifier_step.gradient_step(model, images, labels, TEN)
    assert_close(gradients(model), expected)
    for name, p in twin.named_parameters():
        p.grad = expected[name]
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    optimiser.step()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)


# precision


@pytest.mark.parametrize("treatment", ["", "e", "bnp"])
def test_products_of_bf16_factors_give_nearly_the_same_step(treatment: str):
    exact, (images, labels) = network(treatment), batch(32)
    near = copy.deepcopy(exact).float()
    of_exact = classifier_step.gradient_step(exact, images, labels, TEN)
    of_near = classifier_step.gradient_step(near, images.float(), labels, TEN, precision="bf16")
    assert of_near.loss == pytest.approx(of_exact.loss, rel=0.03)
    assert all(p.grad.dtype == torch.float32 for p in near.parameters())
    a, b = (torch.cat([g.double().flatten() for g in gradients(of).values()]) for of in (exact, near))
    assert functional.cosine_similarity(a, b, dim=0) > 0.95
    assert not torch.equal(a, b)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_are_fp32_whatever_the_network_computes_with(precision: str):
    model, (images, _) = network().float(), batch(dtype=torch.float32)
    logits = classifier_step.logits_of(model, images, precision)
    assert logits.dtype == torch.float32
    assert (precision == "fp32") == torch.equal(logits, copy.deepcopy(model)(images))


# reports


def test_reports_are_averaged_over_steps_and_over_images():
    reports = [ClassifierReport(3.0, 1, 10), ClassifierReport(1.0, 0, 10), ClassifierReport(0.5, 5, 5)]
    assert ClassifierReport.averaged(reports) == {"loss": 1.5, "accuracy": 24.0}
    assert ClassifierReport.averaged(reports[:1]) == {"loss": 3.0, "accuracy": 10.0}
