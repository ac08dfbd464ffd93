"""Memory estimates of the tasks: lower bounds, within a factor of about 3 of what autograd keeps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from enerf.config import parser
from enerf.config.parser import C
from enerf.core.types import Rays
from enerf.rendering import render
from enerf.tasks.classifier import build as classifier_build
from enerf.tasks.classifier import memory as classifier_memory
from enerf.tasks.classifier import setup as classifier_setup
from enerf.tasks.classifier.config import ClassifierConfig
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf import memory as nerf_memory
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape import memory as shape_memory
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape.config import ShapeConfig
from tests.contents import refusal

FP32 = ("--precision", "fp32", "--device", "cpu")


def config_of(kind: type[C], *words: str) -> C:
    return parser.parse(kind, [*words, *FP32])[0]


def kept_bytes(compute: Callable[[], Any], model: nn.Module) -> int:
    """Bytes of the tensors that autograd keeps during a forward pass, without the model's parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, torch.UntypedStorage] = {}  # keeps the storages, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _kept = compute()
    return sum(storage.nbytes() for address, storage in sizes.items() if address not in own)


def assert_is_lower_bound(estimated: int, kept: int) -> None:
    assert kept / 3.5 <= estimated <= kept


def kept_by_rendering(fields: nerf_build.RadianceFields, config: NerfConfig) -> int:
    """Bytes kept for the backward pass of a rendering of 64 rays."""
    origins, directions = torch.zeros(64, 3), torch.randn(64, 3)
    rays = Rays(origins, directions, directions, torch.full((64,), 1.0), torch.full((64,), 4.0))
    chosen = nerf_setup.sampling_config(config)
    return kept_bytes(lambda: render.render_rays(fields.coarse, fields.fine, rays, chosen), fields)


@pytest.mark.parametrize("sampling", [("--N_importance", "0"), ("--N_importance", "16")])
def test_activations_of_a_nerf(sampling):
    config = config_of(NerfConfig, "--N_samples", "16", "--N_rand", "64", *sampling)
    fields = nerf_build.radiance_fields(config.model, config.conditioning, config.render.N_importance > 0, 0)
    kept = kept_by_rendering(fields, config)
    needs = nerf_memory.training_bytes(config, 1 << 30)
    assert_is_lower_bound(needs["options --N_samples and --N_importance"], kept)
    parameters = sum(parameter.numel() for parameter in fields.parameters())
    assert 16 * parameters in needs.values()


@pytest.mark.parametrize("sampler", ["proposal", "hierarchical"])
def test_activations_of_deferred_shading(sampler):
    wide = ("--ray_features", "512", "--netdepth_color", "4", "--netwidth_color", "512", "--netdepth_fine", "1")
    narrow = ("--netwidth_fine", "8", "--netdepth", "1", "--netwidth", "8", "--density", "exp")
    words = ("--shading", "ray", "--sampler", sampler, "--N_samples", "16", "--N_importance", "16", "--N_rand", "64")
    config = config_of(NerfConfig, *words, *wide, *narrow)
    proposes = sampler == "proposal"
    fields = nerf_build.radiance_fields(config.model, config.conditioning, True, 0, proposal=proposes)
    kept = kept_by_rendering(fields, config)
    needs = nerf_memory.training_bytes(config, 1 << 30)
    assert_is_lower_bound(needs["options --ray_features, --netdepth_color and --netwidth_color"], kept)


@pytest.mark.parametrize("encoding", ["hash", "positional", "fourier"])
def test_activations_of_a_shape(encoding):
    words = ("--mesh", "a.ply", "--encoding", encoding, "--N_points", "4096", "--netdepth", "4", "--netwidth", "128")
    config = config_of(ShapeConfig, *words, "--hash_levels", "2")
    field = shape_setup.new_field(config)
    points = torch.rand(4096, 3)
    kept = kept_bytes(lambda: field(points), field)
    needs = shape_memory.training_bytes(config)
    activations = needs["options --N_points, --netwidth and --netdepth"]
    assert activations <= kept
    if encoding != "hash":  # the reference implementation of hash grids keeps more than its network
        assert_is_lower_bound(activations, kept)
    assert 16 * sum(parameter.numel() for parameter in field.parameters()) in needs.values()


@pytest.mark.parametrize("name", ["densenet", "resnet18", "vit_s"])
def test_activations_of_a_classifier(name):
    config = config_of(ClassifierConfig, "--images", "a", "--model", name, "--N_batch", "4", "--width", "0.25")
    norm = classifier_setup.norm_of(config)
    model = classifier_build.network(name, classes=10, channels=3, size=32, norm=norm, seed=0, width=0.25)
    kept = kept_bytes(lambda: model(torch.rand(4, 3, 32, 32)), model)
    needs = classifier_memory.training_bytes(config, norm, 10, 3, 32)
    assert_is_lower_bound(needs["options --N_batch, --width, --depth and --image_size"], kept)


@pytest.mark.parametrize("words", [("--N_rand", str(1 << 26)), ("--netwidth", "65536", "--netdepth", "1000")])
def test_a_nerf_that_cannot_fit_is_refused_before_its_scene_is_read(words, monkeypatch):
    monkeypatch.setattr("enerf.core.files.available_memory", lambda: 1 << 32)
    monkeypatch.setattr(nerf_setup, "load_scene", pytest.fail)
    assert words[0] in refusal(nerf_setup.prepare, config_of(NerfConfig, *words, "--basedir", "/nonexistent"))


def test_a_shape_that_cannot_fit_is_refused_before_its_mesh_is_read(monkeypatch):
    monkeypatch.setattr("enerf.core.files.available_memory", lambda: 1 << 32)
    monkeypatch.setattr(shape_setup, "load_target", pytest.fail)
    words = ("--mesh", "a.ply", "--basedir", "/nonexistent", "--pool", str(1 << 28))
    assert refusal(shape_setup.prepare, config_of(ShapeConfig, *words)).startswith("option --pool: found values")


def test_what_is_ordinary_is_not_estimated():
    small = config_of(ClassifierConfig, "--images", "a")
    assert classifier_memory.is_ordinary(small, 32)
    assert not classifier_memory.is_ordinary(small, 224)
    assert not classifier_memory.is_ordinary(config_of(ClassifierConfig, "--images", "a", "--width", "2"), 32)
    assert math.isclose(classifier_memory.ORDINARY, 128 * 32**2)
