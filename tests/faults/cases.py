"""The runs of the campaign: tiny models on generated data, of all tasks and of mixed options; seconds each."""

import re
from dataclasses import dataclass, field
from pathlib import Path

BASEDIR, NAME = "logs", "run"  # relative to the working folder, so that options are equal in all of them
TIMED = ("--checkpoint_minutes", "0.005")

COMMON = "--device cpu --precision fp32 --backend torch --i_print 1 --seed 3"
NERF = (
    f"train --datadir {{data}}/scene --factor 1 --no_pose_check {COMMON} --N_iters 60 --N_rand 32 --N_samples 8 "
    "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --multires 4 --eval_rays 64 --i_eval 20 "
    "--i_img 25 --i_spectrum 15 --i_testset 30"
)
GRID = (
    "--encoding hash --hash_levels 4 --hash_log2_entries 9 --hash_finest 64 --sampler proposal --N_importance 8 "
    "--density exp --use_viewdirs --lrate_schedule cosine --lrate 1e-2"
)
SHAPE = (
    f"shape --mesh {{data}}/shape.ply {COMMON} --N_points 512 --resolution 24 --i_eval 80 --i_spectrum 30 "
    "--N_iters 120 --netwidth 16"
)
CLASSIFIER = (
    f"classify --images {{data}}/figures {COMMON.replace('--backend torch ', '')} --N_batch 16 --N_iters 40 "
    "--i_eval 16 --eval_images 20 --i_spectrum 12"
)


@dataclass(frozen=True)
class Case:
    """A run: its name, its command line with ``{data}`` for the folder of the data, and what else can be made of it.

    Attributes
    ----------
    steps
        Number of its steps.
    extra
        Commands on the finished run, by the category of the file that they write.
    """

    name: str
    command: str
    steps: int
    extra: dict[str, str] = field(default_factory=dict)

    def words(self, data: Path) -> list[str]:
        """Command line of the training."""
        return [*self.command.format(data=data).split(), *TIMED, "--basedir", BASEDIR, "--expname", NAME]

    @property
    def task(self) -> str:
        """Name of its task."""
        return self.name.split()[0]

    def others(self) -> dict[str, list[str]]:
        """Commands on the finished run, by name."""
        run = f"{BASEDIR}/{NAME}"
        commands = {"eval": f"eval {run}", "analyze": f"analyze {run} --no_hessian --checkpoints 2", **self.extra}
        return {name: text.format(run=run).split() for name, text in commands.items()}


def folder_of(work: Path) -> Path:
    """Folder of the run's results in a working folder."""
    return work / BASEDIR / NAME


VIDEO = "render {run} --path interpolate --frames 12 --device cpu"
MESH = "extract {run} --resolution 24 --device cpu"
SHOWN = {
    "bake": "bake {run} --seconds 0 --planes 8 --device cpu",
    "export-web": "export-web {run} --seconds 0 --device cpu",
    "report": "report {run} --out {run}/report.html",
}
CASES = (
    Case(
        "nerf",
        f"{NERF} --equilibrate --N_importance 8 --i_weights 15 --i_video 50",
        60,
        {"render": VIDEO, "extract": f"{MESH} --level 0.5", **SHOWN},
    ),
    Case("nerf grid", f"{NERF} {GRID} --i_weights 7 --equilibrate", 60, {"render": f"{VIDEO} --png"}),
    Case(
        "shape grid",
        f"{SHAPE} --background process --pool 2048 --pool_uses 2 --hash_levels 4 --hash_log2_entries 10 --lrate 2e-2 "
        "--lrate_grid 5e-2 --i_weights 40",
        120,
        {"extract": MESH},
    ),
    Case(
        "shape sine",
        f"{SHAPE} --background none --pool 512 --encoding none --activation sine --representation sdf "
        "--equilibrate --equilibrate_scale learned --eikonal 0.1 --lrate 1e-4 --i_weights 0",
        120,
        {"extract": f"{MESH} --views --frames 8 --size 32"},
    ),
    Case(
        "classifier",
        f"{CLASSIFIER} --model densenet --depth 10 --normalisation bn+e --augment shift_flip --optimiser adamw "
        "--weight_decay 0.1 --lrate 1e-2 --i_weights 10",
        40,
    ),
    Case(
        "classifier mixup",
        f"{CLASSIFIER} --model resnet18 --width 0.125 --augment shift_flip --optimiser sgd --momentum 0.9 --lrate 0.05 "
        "--lrate_schedule cosine --mixup 0.2 --i_weights 0",
        40,
    ),
)


def chosen(pattern: str) -> list[Case]:
    """Cases whose names match a regular expression."""
    return [case for case in CASES if re.search(pattern, case.name)]


def write_data(folder: Path) -> Path:
    """Write the generated data of all cases; returns the folder."""
    import numpy as np
    import trimesh

    from enerf.datasets.labelled import synthetic as figures
    from enerf.datasets.scenes import synthetic as scenes

    if not (folder / "written").exists():
        scenes.write_scene(folder / "scene", 8, width=32, height=24, supersample=1, progress=False)
        figures.write_cifar(folder / "figures", 200, 40)
        ball = trimesh.creation.icosphere(2)
        ball.vertices[:, 0] *= np.where(ball.vertices[:, 0] > 0, 1.5, 0.8)
        ball.export(folder / "shape.ply")
        (folder / "written").touch()
    return folder
