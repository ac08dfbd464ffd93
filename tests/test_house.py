"""The house rules that no other tool holds."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "enerf").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
HEAVY = ("torch", "numpy", "cv2", "imageio", "matplotlib", "tensorboard")


def test_init_files_hold_a_docstring_and_plain_values_only():
    for path in (p for p in MODULES if p.name == "__init__.py"):
        first, *rest = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(first, ast.Expr), path
        assert isinstance(first.value, ast.Constant), path
        plain = (ast.Constant, ast.List)
        assert all(isinstance(node, ast.Assign) and isinstance(node.value, plain) for node in rest), path


def test_files_stay_short_and_are_named_for_what_they_do():
    for path in MODULES + SCRIPTS:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
        assert path.stem not in {"utils", "util", "helpers", "common", "base", "misc"}, path


def test_functions_stay_readable():
    for path in MODULES + SCRIPTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                length = node.end_lineno - node.lineno + 1 - docstring.count("\n")
                assert length <= 60, f"{path}: {node.name} is {length} lines long without its docstring"


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, enerf; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_the_readme_names_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?:scripts|benchmarks)/[\w/]+\.(?:py|sh)", readme):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"--config ([\w/]+\.txt)", readme):
        assert (ROOT / "configs" / name).is_file(), name
    for name in re.findall(r"\]\((benchmarks/[^)#]+)\)", readme):
        assert (ROOT / name).exists(), name


def test_the_repository_does_not_speak_of_machines_it_was_written_on():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wrong = re.compile(r"/(?:work|root|home)/\w|/tmp/(?!\w*\{)")
    for name in tracked.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".txt", ".toml", ".sh"} and path != Path(__file__) and path.is_file():
            assert not wrong.search(path.read_text(encoding="utf-8")), name
