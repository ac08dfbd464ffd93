"""Tests of the public names: they resolve lazily, old module paths warn, and only torch and jaxtyping are needed."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("enerf.conditioning", "enerf.conditioning.diagnostics", "enerf.optim")

# Dependencies of the application and of the extras, which the code below runs without.
BLOCKED = (
    *("numpy", "scipy", "configargparse", "tqdm", "imageio", "imageio_ffmpeg", "PIL", "cv2", "matplotlib", "trimesh"),
    *("igl", "embreex", "fast_simplification", "tensorboard", "lpips", "curvlinops", "torchvision", "triton"),
)

ONLY_TORCH = """
import sys, warnings

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch
from torch import nn
from enerf.conditioning import *
from enerf.conditioning.diagnostics import *
from enerf.optim import *

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 4))
initialize_(net, ["0", "2"], "he", torch.Generator().manual_seed(0))
assert condition(net, "ruiz", scale="learned") == ["0", "2"]
optimizer = IntrinsicAdam(net.parameters(), l1=1e-3, shrinkage="soft")
x = torch.randn(5, 1, 3, 3)
with computed_once(net):
    net(x).square().mean().backward()
optimizer.step()
assert sparsity(optimizer).overall < 1
assert layer_report(net, ["0", "2"])["2"]["kappa"] > 1
assert record_layer_inputs(net, ["2"], lambda: net(x))["2"].shape == (5, 12)
assert extremes(torch.eye(3)).largest == (1.0,)
objective = Objective(net, nn.functional.mse_loss, x, torch.zeros(5, 4))
assert gauss_newton_spectrum(objective)[0] > 0
before = net(x)
assert torch.equal(bake(net)(x), before)
try:
    hessian(objective)
except ImportError as error:
    assert "enerf[diagnostics]" in str(error)
else:
    raise AssertionError("hessian needs curvlinops")
unwanted = {{name.partition(".")[0] for name in sys.modules}} & {blocked}
assert not unwanted, unwanted
"""


def run(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_resolves_and_is_listed(package: str):
    module = importlib.import_module(package)
    assert set(module.__all__) == {name for names in module._MODULES.values() for name in names}
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    names: dict[str, object] = {}
    exec(f"from {package} import *", names)
    assert set(module.__all__) <= set(names)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_packages_import_no_torch_until_a_name_is_used():
    imports = "; ".join(f"import {package}" for package in PACKAGES)
    assert run(f"{imports}; import sys; print('torch' in sys.modules)").strip() == "False"


def test_the_library_needs_torch_and_jaxtyping_alone():
    run(ONLY_TORCH.format(blocked=set(BLOCKED)))


def test_old_module_paths_warn_and_have_the_same_objects():
    moved = importlib.import_module("enerf.conditioning._moved")
    for old, new in moved.MODULES.items():
        module = importlib.import_module(f"enerf.conditioning.{old}")
        assert getattr(importlib.import_module("enerf.conditioning"), old) is module
        target = importlib.import_module(f"enerf.conditioning.{new}")
        names = {name: renamed for (path, name), renamed in moved.NAMES.items() if path == old}
        some = next(n for n, v in vars(target).items() if callable(v) and v.__module__ == target.__name__)
        for name, renamed in {**names, some: some}.items():
            with pytest.warns(DeprecationWarning, match=rf"conditioning\.{old}\.{name} is now .*{new}\.{renamed}$"):
                assert getattr(module, name) is getattr(target, renamed)


def test_the_documented_old_imports_work_with_a_warning():
    with pytest.warns(DeprecationWarning, match="enerf.conditioning.state_dict.baked_state"):
        from enerf.conditioning.checkpoints import baked_state
    with pytest.warns(DeprecationWarning, match="enerf.conditioning.weight_cache.computed_once"):
        from enerf.conditioning.once import computed_once
    with pytest.warns(DeprecationWarning, match="enerf.optim.shrinkage.params_with_gradients"):
        from enerf.optim.groups import with_gradients
    assert callable(baked_state)
    assert callable(computed_once)
    assert callable(with_gradients)


def test_importing_the_library_does_not_import_torchs_compiler():
    names = "; ".join(f"from {package} import *" for package in PACKAGES)
    use = "net = torch.nn.Linear(3, 4); condition(torch.nn.Sequential(net), 'row', scale='learned'); net.weight"
    assert run(f"import sys, torch; {names}; {use}; print('torch._dynamo' in sys.modules)").strip() == "False"
