"""The page of options is the one that the declarations make."""

import dataclasses
from pathlib import Path

from enerf.cli import document
from enerf.config import options
from enerf.tasks import registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"


def test_the_page_of_options_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == document.page(), "run: python -m enerf.cli.document > docs/options.md"


def test_it_names_every_option_of_every_task():
    text = document.page()
    for task in registry.tasks():
        assert all(f"| `--{name}` |" in text for name in options.declared(task.load("config")))


def test_it_names_the_options_of_a_command_beside_those_of_its_configuration():
    section = document.page().split("## enerf train\n")[1].split("\n## ")[0]
    for table in document.BESIDE["train"]:
        assert all(f"| `--{item.name}` |" in section for item in dataclasses.fields(table))
