"""What the README shows as Python runs."""

import re
from pathlib import Path

import torch

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs_in_its_order():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in blocks:
            exec(compile(block, "README.md", "exec"), names)
    assert torch.is_tensor(names["before"])


def test_lines_of_the_readmes_code_are_short_enough_to_read():
    for block in re.findall(r"```(?:python|bash)\n(.*?)```", README, re.DOTALL):
        assert max(map(len, block.splitlines())) <= 150
