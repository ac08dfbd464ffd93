"""The package: what a wheel holds, what it needs, and what works with fewer packages installed.

Programs run with ``python -S`` and an explicit PYTHONPATH, so that neither the checkout nor the environment's own
``enerf`` is found by accident.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = Path(sysconfig.get_path("purelib"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
OPTIONAL = (
    *("backpack", "curvlinops", "einops", "embreex", "fast_simplification", "linear_operator", "lpips"),
    *("tinycudann", "torchvision", "triton"),
)
ONE_SENTENCE = re.compile(
    r"error: the package [\w-]+ is not installed; the commands need the extra app: pip install 'enerf\[app\]'\n"
)


def run(*words: object, path: list[Path], cwd: Path, **settings: str) -> subprocess.CompletedProcess:
    """Run Python with these folders as its only packages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, path)), **settings}
    command = [sys.executable, "-S", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=280, check=False)


def output(*words: object, **settings) -> str:
    done = run(*words, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def requirements(name: str, found: set[str]) -> set[str]:
    """A distribution and all that it requires without extras."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name not in found:
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            if ";" not in line:
                requirements(re.match(r"[\w.-]+", line)[0], found)
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Path:
    """A folder with torch and jaxtyping and what they require, and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    for name in requirements("torch", set()) | requirements("jaxtyping", set()):
        for file in importlib.metadata.files(name):
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).is_symlink():
                (folder / top).symlink_to(INSTALLED / top)
    assert not (folder / "numpy").exists()
    return folder


def test_the_library_works_with_torch_and_jaxtyping_alone(light, tmp_path):
    code = """if True:
        import torch, enerf, enerf.optim
        from enerf.optim.intrinsic import IntrinsicAdam
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
        names = enerf.condition(model, "row")
        optimizer = IntrinsicAdam(model.parameters())
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        enerf.bake(model)
        import enerf.conditioning.diagnostics.curvature, enerf.conditioning.diagnostics.eigenvalues
        print(names)
    """
    assert output("-c", code, path=[light, ROOT], cwd=tmp_path) == "['0', '1']\n"


def test_without_the_application_every_command_and_script_prints_one_sentence(light, tmp_path):
    from enerf.cli import main
    from enerf.tasks import registry

    words = {
        "compare": ["nerf"],
        "sweep": ["nerf"],
        "generate": ["shape", "--out", "new"],
        "eval": ["a_run"],
        "extract": ["a_run"],
        "bake": ["a_run"],
        "export-web": ["a_run"],
        "render": ["a_run"],
        "analyze": ["a_run"],
    }
    commands = [*(task.command for task in registry.tasks()), *main.COMMANDS]
    commands.remove("status")  # needs the standard library alone
    programs = [["-m", "enerf.cli.main", name, *words.get(name, [])] for name in commands]
    programs += [[script, "a_run"] for script in SCRIPTS]
    for program in programs:
        done = run(*program, path=[light, ROOT], cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), (program, done.stderr)
        assert ONE_SENTENCE.fullmatch(done.stderr), (program, done.stderr)
    assert output("-m", "enerf.cli.main", "--help", path=[light, ROOT], cwd=tmp_path).startswith("usage: enerf COMMAND")
    assert list(tmp_path.iterdir()) == []


def test_help_and_mistakes_import_neither_torch_nor_numpy(tmp_path):
    code = """if True:
        import atexit, sys
        atexit.register(lambda: print([name for name in ("torch", "numpy", "matplotlib") if name in sys.modules]))
        from enerf.cli import main
        main.enter()
    """
    for words, status in (
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["compare", "classifier", "--help"], 0),
        (["train", "--N_rnad", "3"], 2),
        (["train", "--config", "fren.txt"], 2),
        (["trian"], 2),
    ):
        done = run("-c", code, *words, path=[ROOT, INSTALLED], cwd=tmp_path)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (status, "[]"), (words, done.stderr)


def test_public_names_are_listed_and_resolve():
    import enerf

    assert set(enerf.__all__) <= set(dir(enerf))
    for name in enerf.__all__:
        assert getattr(enerf, name) is not None
    assert enerf.condition is importlib.import_module("enerf.conditioning.layers").condition
    with pytest.raises(AttributeError, match="module 'enerf' has no attribute 'twin'"):
        enerf.twin  # noqa: B018


def test_the_base_is_torch_and_jaxtyping_and_extras_keep_their_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]] == ["torch", "jaxtyping"]
    assert {"app", "diagnostics", "lpips", "triton", "test"} <= project["optional-dependencies"].keys()
    assert "enerf[app,diagnostics]" in project["optional-dependencies"]["test"]


def build(kind: str, source: Path, out: Path) -> Path:
    """An sdist or a wheel of a folder, built without network."""
    out.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True, timeout=280)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A clean copy of the tracked files."""
    folder = tmp_path_factory.mktemp("copy") / "enerf"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (name.startswith(("enerf/", "configs/")) or "/" not in name) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(copy, tmp_path_factory) -> Path:
    """The wheel of the source distribution of the clean copy."""
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(build("sdist", copy, folder / "sdist")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("enerf-*")
    return build("wheel", unpacked, folder / "wheel")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel, installed into an empty folder."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", folder, wheel]
    subprocess.run([*map(str, pip)], capture_output=True, text=True, check=True, timeout=280)
    return folder


def names_in(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("enerf/")}


@pytest.mark.slow
def test_a_wheel_holds_the_package_and_the_configs_and_nothing_else(copy, wheel):
    expected = {f"enerf/{path.relative_to(copy).as_posix()}" for path in (copy / "configs").rglob("*.txt")}
    expected |= {path.relative_to(copy).as_posix() for path in (copy / "enerf").rglob("*") if path.is_file()}
    assert {"enerf/py.typed", "enerf/configs/cpu/fern.txt"} <= expected
    assert any(name.endswith(".cpp") for name in expected)
    assert names_in(wheel) == expected
    with zipfile.ZipFile(wheel) as archive:
        (license_file,) = [name for name in archive.namelist() if name.endswith("LICENSE")]
        assert b"the enerf authors" in archive.read(license_file)


@pytest.mark.slow
def test_a_build_takes_nothing_from_an_earlier_one_and_leaves_the_sources_alone(copy, wheel, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(copy, source)
    for name in ("gone.py", "configs/gone.txt"):
        stale = source / "build" / "lib" / "enerf" / name
        stale.parent.mkdir(parents=True, exist_ok=True)
        stale.write_text("")
    assert names_in(build("wheel", source, tmp_path / "wheel")) == names_in(wheel)
    assert not (source / "enerf" / "configs").exists()


@pytest.mark.slow
def test_an_installed_command_finds_the_packaged_configs(installed, tmp_path):
    place = {"path": [installed, INSTALLED], "cwd": tmp_path}
    command = installed / "bin" / "enerf"
    assert output(command, "--version", **place) == f"{importlib.metadata.version('enerf')}\n"
    assert "enerf COMMAND" in output(command, "--help", **place)
    assert "--N_rand" in output(command, "train", "--config", "paper/fern", "--help", **place)
    missing = run(command, "train", "--config", "fren.txt", **place)
    assert missing.returncode == 2
    assert missing.stderr.startswith(
        "error: option --config: no file 'fren.txt', neither as a path nor in enerf/configs/; "
        "near names in enerf/configs/: fern.txt"
    )
    code = "from enerf.config import parser; print(parser.find_config('cpu/fern'))"
    assert output("-c", code, **place) == f"{installed / 'enerf' / 'configs' / 'cpu' / 'fern.txt'}\n"
    (tmp_path / "fern.txt").write_text("")
    code = "from enerf.config import parser; print(parser.find_config('fern'))"
    assert output("-c", code, **place) == "fern.txt\n"


@pytest.mark.slow
def test_every_module_of_an_installed_wheel_imports_without_the_optional_extras(installed, tmp_path):
    code = f"""if True:
        import importlib, json, pkgutil, sys
        sys.modules.update(dict.fromkeys({OPTIONAL}))
        import enerf
        names = [module.name for module in pkgutil.walk_packages(enerf.__path__, "enerf.")]
        print(json.dumps([[name, importlib.import_module(name).__file__] for name in names]))
    """
    place = {"path": [installed, INSTALLED], "cwd": tmp_path, "MPLCONFIGDIR": str(tmp_path)}
    found = dict(json.loads(output("-c", code, **place)))
    assert {"enerf.cli.main", "enerf.fields.backends.triton_dense", "enerf.tasks.shape.mesh"} <= found.keys()
    assert all(Path(file).is_relative_to(installed) for file in found.values())


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")
def test_the_kernels_of_an_installed_wheel_compile(installed, tmp_path):
    code = """if True:
        from pathlib import Path
        import enerf
        from enerf.core.cpu_build import library
        sources = sorted(Path(enerf.__file__).parent.rglob("*.cpp"))
        print(*(source.stem for source in sources))
        print([source.stem for source in sources if library(source) is None])
    """
    place = {"path": [installed, INSTALLED], "cwd": tmp_path, "ENERF_CACHE": str(tmp_path)}
    names = " ".join(sorted(path.stem for path in (ROOT / "enerf").rglob("*.cpp")))
    found, failed = output("-c", code, **place).splitlines()
    assert sorted(found.split()) == names.split()
    assert failed == "[]"
