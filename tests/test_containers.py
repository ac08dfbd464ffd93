"""The container images: their steps install a package that works without its checkout."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "containers"
KINDS = ("cpu", "cuda")


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_made_by_the_installation_that_is_checked(kind):
    text = (FOLDER / f"Dockerfile.{kind}").read_text()
    steps = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    assert any(f"sh /source/containers/install.sh {kind}" in step for step in steps)
    assert 'ENTRYPOINT ["enerf"]' in text
    installed = re.findall(r"pip install|-r .*requirements", text)
    assert not installed, "packages are installed by install.sh alone"


def test_the_extras_that_are_installed_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.search(r'"\.\[(.*)\]"', (FOLDER / "install.sh").read_text())[1].split(",")
    assert set(named) <= set(extras)


def can_build():
    found = shutil.which("docker")
    return found and subprocess.run([found, "info"], capture_output=True, check=False).returncode == 0


def run(*command, **variables):
    """Run a command without the variables of this environment's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_cpu_image_trains_renders_and_extracts(tmp_path):
    """By docker where it runs; elsewhere its steps in a fresh environment, from a copy of the checkout."""
    if can_build():
        run("docker", "build", "-q", "-f", "containers/Dockerfile.cpu", "-t", "enerf-check", ".")
        mounted = f"{FOLDER / 'check.sh'}:/check.sh:ro"
        said = run("docker", "run", "--rm", "--entrypoint", "sh", "-v", mounted, "enerf-check", "/check.sh")
    else:
        source = tmp_path / "source"
        for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, source / name)
        venv.create(tmp_path / "python", with_pip=True)
        python = tmp_path / "python/bin/python"
        run("sh", str(source / "containers/install.sh"), "cpu", PYTHON=str(python))
        shutil.rmtree(source)
        said = run("sh", str(FOLDER / "check.sh"), str(tmp_path / "python/bin/enerf"))
    assert said.rstrip().endswith("check passed")
    assert sys.prefix not in said
