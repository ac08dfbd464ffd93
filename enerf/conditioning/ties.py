"""Tied weights: one parameter held by several modules. They are conditioned together, or not at all."""

from collections.abc import Collection, Iterator

from torch import nn

from enerf.conditioning import matrices


def objection(model: nn.Module, name: str) -> str | None:
    """Why a layer cannot be conditioned together with those that hold its weights, or None if it can."""
    layer = model.get_submodule(name)
    shapes = {slot.name: slot for slot in matrices.slots(layer)}
    for tensor, path, holder, key in _others(model, layer):
        as_read = [(s.shape, s.batch, s.n_out, s.n_in, s.transposed) for s in matrices.slots(holder) if s.name == key]
        slot = shapes[tensor]
        if as_read != [(slot.shape, slot.batch, slot.n_out, slot.n_in, slot.transposed)]:
            return (
                f"it shares its weight with {path} ({type(holder).__name__}.{key}), which cannot be conditioned with "
                "it: untie them first"
            )
    return None


def with_tied(model: nn.Module, names: Collection[str]) -> list[str]:
    """The names, and those of all layers that hold one of their weights, in the model's order."""
    taken = {path for name in names for _, path, _, _ in _others(model, model.get_submodule(name))} | set(names)
    return [name for name, _ in model.named_modules() if name in taken]


def one_of_each(layers: dict[str, nn.Module]) -> list[str]:
    """Names without those whose weights an earlier one holds."""
    first: dict[tuple[int, ...], str] = {}
    for name, module in layers.items():
        first.setdefault(tuple(id(getattr(module, slot.name)) for slot in matrices.slots(module)), name)
    return list(first.values())


def _others(model: nn.Module, layer: nn.Module) -> Iterator[tuple[str, str, nn.Module, str]]:
    """Other holders of a layer's weights: the weight's name here; path, module and name there."""
    own = {id(p): key for key, p in layer.named_parameters(recurse=False) if key in _slot_names(layer)}
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if module is not layer and id(parameter) in own:
                yield own[id(parameter)], path, module, key


def _slot_names(layer: nn.Module) -> set[str]:
    return {slot.name for slot in matrices.slots(layer)}
