"""Small runs for the tests of sweeps."""

from dataclasses import dataclass, field

from enerf.config import parser
from enerf.experiments.executors.registry import Outcome
from enerf.tasks.nerf.config import NerfConfig

TINY = {
    **{"factor": 1, "llffhold": 3, "netwidth": 8, "netwidth_fine": 8, "netdepth": 2, "netdepth_fine": 2},
    **{"N_rand": 16, "N_samples": 4, "N_importance": 4, "N_iters": 4, "i_eval": 2, "i_img": 0, "i_video": 0},
    **{"i_print": 1, "device": "cpu", "backend": "torch", "precision": "fp32", "i_testset": 0},
}


def config(scene, folder, **changes):
    """A configuration of seconds."""
    return parser.from_dict(
        NerfConfig, {**TINY, "datadir": str(scene), "basedir": str(folder), "expname": "sweep", **changes}
    )


@dataclass
class Script:
    """An executor that does not train: it ends each attempt as a script says, and keeps what it was asked for."""

    codes: dict  # label -> exit codes of its attempts
    slots: int = 2
    repeats: bool = True
    name: str = "script"
    running: list = field(default_factory=list)
    submitted: list = field(default_factory=list)
    jobs: list = field(default_factory=list)
    most: int = 0
    stopped: int = 0
    interrupt_after: int = 1 << 30

    def submit(self, job):
        self.submitted.append(job.variant.label)
        self.jobs.append(job)
        self.running.append(job)
        self.most = max(self.most, len(self.running))
        return True

    def wait(self):
        if len(self.submitted) >= self.interrupt_after:
            raise KeyboardInterrupt
        job = self.running.pop(0)
        code = self.codes.get(job.variant.label, [0]).pop(0) if job.variant.label in self.codes else 0
        return [Outcome(job, code, f"code {code}" if code else "", None if code else {"mean": {"psnr": 20.0}})]

    def stop(self):
        self.stopped += 1
