"""Build step: copies ``configs/`` into the wheel as ``enerf/configs``. Everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = Path(__file__).resolve().parent / "configs"


class BuildWithConfigs(build_py):
    """``build_py`` that starts from an empty target, and adds the configuration files."""

    def run(self) -> None:
        """Build into ``build_lib``; an editable install reads ``configs/`` in the checkout instead."""
        package = Path(self.build_lib) / "enerf"
        if not self.editable_mode:
            shutil.rmtree(package, ignore_errors=True)  # setuptools would keep the files of an earlier build
        super().run()
        if not self.editable_mode:
            for path in CONFIGS.rglob("*.txt"):
                target = package / "configs" / path.relative_to(CONFIGS)
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": BuildWithConfigs})
