"""Several processes of one run on this computer, as ``torchrun`` starts them; forked from a server that has torch."""

import importlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests import forked

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.conftest", "torch", "enerf.tasks.nerf.train", "enerf.tasks.shape.train"])
SECONDS = 120.0  # after which a process that should have ended counts as hanging


@dataclass
class Processes:
    """Started processes, by rank, and the files of their output."""

    made: list[BaseProcess]
    outputs: list[Path]
    codes: list[int | None] = field(default_factory=list)

    def wait(self) -> "Processes":
        """Wait for the processes to end; those that hang are killed, and have no exit code."""
        for each in self.made:
            each.join(SECONDS)
        self.codes = [each.exitcode for each in self.made]
        for each in self.made:
            if each.is_alive():
                each.kill()
                each.join()
        return self

    def output(self, rank: int = 0) -> str:
        """What a process has written, without progress bars."""
        lines = self.outputs[rank].read_text().replace("\r", "\n").split("\n")
        return "\n".join(line for line in lines if line.strip() and "%|" not in line and not line.startswith("train "))


def start(program: str, words: Sequence[Sequence[str]], folder: Path) -> Processes:
    """Start a function ``module:name`` in as many processes as there are lists of words, their ``sys.argv[1:]``."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outputs = [folder / f"output{rank}.txt" for rank in range(len(words))]
    made = [
        _CONTEXT.Process(target=_run, args=(program, list(argv), rank, len(words), port, str(outputs[rank])))
        for rank, argv in enumerate(words)
    ]
    for each in made:
        each.start()
    return Processes(made, outputs)


def run(program: str, words: Sequence[Sequence[str]], folder: Path) -> Processes:
    """The same, and wait for their end."""
    return start(program, words, folder).wait()


def _run(program: str, argv: list[str], rank: int, size: int, port: int, output: str) -> None:
    """Call the function in this process as ``torchrun`` would have started it."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    if size > 1:
        os.environ |= {**where, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    import torch

    torch.set_num_threads(1)
    module, _, name = program.partition(":")
    function = getattr(importlib.import_module(module), name)
    forked.run_and_exit(function, [program, *argv], Path.cwd(), Path(output))
