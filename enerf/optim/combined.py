"""Several optimizers as one: each updates its own parameters, with one state dict and one list of parameter groups."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch.optim import Optimizer


class Combined(Optimizer):
    """Optimizer that steps several others, for example Muon for hidden matrices and Adam for all other parameters.

    ``param_groups`` are the groups of the parts in their order, as the same dictionaries, so that learning rates that
    are set in them take effect; ``state`` shows the states of all parameters. The state dict has torch's format: it is
    that of one optimizer with all the groups. A part that loads a state by itself makes new groups, which are seen here
    after the next step.

    Parameters
    ----------
    parts
        The optimizers; no parameter may be in two of them. LBFGS, which evaluates the loss several times a step, cannot
        be one. Schedules that cycle the momentum need ``cycle_momentum=False``.

    Raises
    ------
    TypeError
        If the parts are not a list of optimizers.
    ValueError
        If there are no parts, one is LBFGS, or a parameter is in two of them.

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 8))
    >>> matrix, rest = [net[1].weight], [net[0].weight, net[0].bias, net[1].bias]
    >>> optimizer = Combined([torch.optim.Adam(rest, lr=1e-3), torch.optim.SGD(matrix, lr=1e-2)])
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.001, 0.01]
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        if not isinstance(parts, Sequence) or not all(isinstance(part, Optimizer) for part in parts):
            raise TypeError(f"the parts are a {type(parts).__name__}; expected optimizers, in a list")
        groups = [group for part in parts for group in part.param_groups]
        identities = [id(parameter) for group in groups for parameter in group["params"]]
        if any(isinstance(part, torch.optim.LBFGS) for part in parts):
            raise ValueError("LBFGS evaluates the loss several times a step; expected optimizers that do not")
        if not identities:
            raise ValueError("no optimizers are given; expected one or more with parameters")
        if len(set(identities)) < len(identities):
            raise ValueError("a parameter is in two optimizers; expected each in one")
        self.parts = list(parts)
        super().__init__([{"params": group["params"]} for group in groups], {})
        self._share()
        self.complete = True

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step each part; the closure, if there is one, is evaluated once, before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        self._share()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Not supported after construction: raises a RuntimeError; add the group to a part, then combine the parts."""
        if hasattr(self, "complete"):
            raise RuntimeError("a group cannot be added to a combined optimizer: add it to a part, and combine again")
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickles: as of torch's optimizers, without hooks and what schedulers have set."""
        return {**super().__getstate__(), "parts": self.parts, "complete": True}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of all parameters."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of all parts; on an error the optimizer is unchanged.

        Raises
        ------
        ValueError
            If its groups do not fit, or lack options of these optimizers.
        """
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        groups, states = state_dict["param_groups"], state_dict["state"]
        if len(groups) != len(self.param_groups):
            raise ValueError(f"the state has {len(groups)} parameter groups, expected {len(self.param_groups)}")
        before = self.state_dict()
        options = [set(part.defaults) & set(group) for part in self.parts for group in part.param_groups]
        try:
            self._load(groups, states)
            for i, (group, expected) in enumerate(zip(self.param_groups, options, strict=True)):
                if missing := sorted(expected - set(group)):  # torch fills in what earlier versions did not have
                    raise ValueError(f"the state is of another optimizer: its group {i} has no {missing[0]}")
        except BaseException:
            self._load(before["param_groups"], before["state"])
            raise
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _load(self, groups: list[dict[str, Any]], states: dict[int, Any]) -> None:
        at = 0
        for part in self.parts:
            own = groups[at : at + len(part.param_groups)]
            numbers = {number for group in own for number in group["params"]}
            part.load_state_dict({"param_groups": own, "state": {n: s for n, s in states.items() if n in numbers}})
            at += len(own)
        self._share()

    def _share(self) -> None:
        """Refer to the groups and states of the parts, which ``load_state_dict`` replaces."""
        self.param_groups = list(chain.from_iterable(part.param_groups for part in self.parts))
        self.state.clear()
        for part in self.parts:
            self.state.update(part.state)
