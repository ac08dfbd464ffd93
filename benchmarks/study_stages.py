"""The stages of ``study.py``: which runs docs/results/plan.md asks for."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enerf.config import methods

SCREEN_RATES = {"": (4e-3,), "fourier": (1e-3,)}  # where the sweep begins; fourier diverges at 4e-3
PLAIN = ("plain", "he", "unit_row")
WEIGHTS = ("equilibrate", "gain", "row_gains", "weight_norm", "ws", "spectral_norm", "orthogonal", "fourier")
MUON = ("muon*5", "muon*20", "muon_he*5", "muon_unit_row*5", "muon_e*5", "muon_gain*5", "muon_ws*5")
OTHERS = ("layer_norm", "batch_norm", *MUON)
ARMS = (*PLAIN, *WEIGHTS, *OTHERS)
NERF_SCREEN = (
    "--N_iters 600 --N_rand 256 --N_samples 32 --N_importance 32 --i_eval 150 --eval_rays 2048 --final_pixels "
    "--final_rays 23814 --i_spectrum 150 --i_weights 0 --i_img 0 --i_video 0 --i_testset 0"
)
NERF_FINAL = (
    "--N_rand 256 --N_samples 32 --N_importance 32 --i_eval 250 --eval_rays 2048 --i_spectrum 500 --i_weights 500 "
    "--i_img 0 --i_video 0 --i_testset 0"
)
FINALISTS = ("plain", "unit_row", "equilibrate", "muon_gain*5", "muon_unit_row*5", "muon_ws*5")  # plan.md: why
DECISIVE = {"plain": (4e-3,), "unit_row": (4e-3,), "equilibrate": (4e-3,), "muon_ws*5": (1e-3,)}  # rates of "screen"
FAST_STEPS = {  # 3,000 over the cost of a step in results/method_cost_fast.txt
    **{"plain": 3000, "unit_row": 3000, "he": 3000, "equilibrate": 2830},
    **{"muon_unit_row*5": 2820, "muon_gain*5": 2700, "muon_ws*5": 2640},
}
LABELS = {
    "plain": "plain",
    "he": "He's initialization",
    "unit_row": "unit rows as an initialization",
    "equilibrate": "**E, the paper's**",
    "gain": "E at He's scale, a gain a matrix",
    "row_gains": "E at He's scale, a gain a row",
    "ws": "weight standardization with gains",
    "weight_norm": "weight norm",
    "spectral_norm": "spectral norm, a gain a matrix",
    "orthogonal": "orthogonal, a gain a matrix",
    "fourier": "Fourier reparameterized",
    "layer_norm": "layer norm",
    "batch_norm": "batch norm",
    "soap": "SOAP",
    "iga": "inductive gradient adjustment",
    "own_gain": "E at the activation's own scale, a gain a matrix",
    "muon*5": "Muon",
    "muon*20": "Muon, twentyfold rate of the matrices",
    "muon_he*5": "Muon from He's",
    "muon_unit_row*5": "Muon from unit rows as an initialization",
    "muon_e*5": "Muon with E",
    "muon_gain*5": "Muon with E and gains from He's scale",
    "muon_ws*5": "Muon with weight standardization and gains",
}
SCORES = ("iou_near", "iou", "psnr")  # the first one that a run has is its score
SHAPE_RELU = ("equilibrate", "gain", "ws", "weight_norm", "fourier")
SHAPE_MUON = ("muon*5", "muon_unit_row*5", "muon_gain*5", "muon_ws*5")
SHAPE_OWN = ("plain", "equilibrate", "own_gain", "weight_norm", "fourier", "muon*5")  # activations with own scales
SHAPE = (
    "--netwidth 128 --N_iters 1000 --pool 131072 --pool_uses 4 --background none --uniform 1 --resolution 0 "
    "--i_eval 200 --i_spectrum 200 --i_weights 0 --precision fp32"
)
VOLUME_ARMS = ("plain", "equilibrate", "own_gain", "fourier", "muon*5")
IMAGE_RATES = {"": (2e-3,)}
IMAGE_RELU = (
    "--encoding positional --multires 8 --netdepth 4 --netwidth 128 --netskip 0 --N_points 8192 --N_iters 1000 "
    "--holdout 0.25 --lrate_schedule cosine --adam_beta2 0.999 --adam_eps 1e-8 --i_eval 100 --i_spectrum 200 "
    "--i_weights 0 --backend torch --precision fp32"
)


@dataclass(frozen=True)
class Stage:
    """Runs that differ in method, learning rate and seed.

    Attributes
    ----------
    script, config, words, source
        The script, its configuration, further options, and the data: an option and a path in the folder of data.
    methods, rates, seeds
        Methods of ``config.methods``; rates of each, of all others under the key ``""``; seeds.
    sweep
        Continue from these rates by factors of two, until the best one of each method lies between two worse ones.
    best_of
        Take the best rate of each method in that stage instead.
    steps
        Steps of each method, where they are not the same for all.
    """

    name: str
    script: str
    config: str
    words_text: str
    source: tuple[str, str]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    sweep: bool = False
    best_of: str = ""
    steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Further options."""
        return shlex.split(self.words_text)

    @property
    def kind(self) -> str:
        """The task: nerf or shape."""
        return "nerf" if "nerf" in self.script else "shape"

    def data(self, folder: Path) -> list[str]:
        """The option of the data."""
        option, path = self.source
        return [option, str(folder / path)]

    def scores(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The score of a run, and what else its table shows."""
        mean = next((metrics[key] for key in ("mean", "picture", "field") if key in metrics), metrics)
        keys = (*SCORES, "psnr_heldout", "ssim", "lpips", "chamfer", "normal_error_degrees")
        found = {key: mean[key] for key in keys if mean.get(key) is not None}
        score = next((found[key] for key in SCORES if key in found), None)
        collapsed = {"collapsed": True} if metrics.get("collapsed") else {}
        return {"score": score, **found, "fit_psnr": metrics.get("fit_psnr"), **collapsed}

    def curve(self, metrics: dict[str, Any]) -> list[list[float]]:
        """Step and score of the evaluations during a run."""
        found = self.scores(metrics)
        at = 1 if self.kind == "nerf" else 3 if "iou_near" in found else 2  # after seconds, and the IoU of meshes
        return [[point[0], float(f"{point[at]:.5g}")] for point in metrics["curve"]]


def options_of_method(method: str, lrate: float) -> list[str]:
    """Command-line options of a method; ``muon*10`` has a tenfold learning rate of the matrices."""
    name, ratio = methods.split_ratio(method)
    words = [] if ratio is None else ["--lrate_matrices", repr(lrate * ratio)]
    changes = {"init": methods.SHAPES.common["init"], **methods.SHAPES.changes[name]}  # some configurations have He's
    for option, value in ((o, v) for o, v in changes.items() if o != "lrate_matrices"):
        words += [f"--{option}"] if value is True else [f"--{option}", str(value)]
    return words


def _nerf(name: str, scene: str, words: str, **more: Any) -> Stage:
    return Stage(name, "train_nerf.py", f"cpu/{scene}.txt", words, ("--datadir", f"llff/{scene}"), **more)


def _final(name: str, scene: str, steps: int) -> Stage:
    words = f"{NERF_FINAL} --N_iters {steps}"
    return _nerf(name, scene, words, methods=FINALISTS, best_of="screen", seeds=(0, 1, 2))


def _fp32(name: str, scene: str, steps: int) -> Stage:
    """Three seeds of four of the finalists in fp32, for processors without bf16 instructions."""
    words = f"{NERF_FINAL} --N_iters {steps} --precision fp32"
    return _nerf(name, scene, words, methods=tuple(DECISIVE), rates=DECISIVE, seeds=(1, 2, 3))


def _fast(name: str, scene: str, **more: Any) -> Stage:
    """The fast preset, whole test views, for as many steps of each method as take the same time."""
    words, source = "--max_seconds 0 --i_eval 200 --i_spectrum 0 --precision fp32", ("--datadir", f"llff/{scene}")
    return Stage(name, "train_nerf.py", f"fast/{scene}.txt", words, source, tuple(FAST_STEPS), steps=FAST_STEPS, **more)


def _shape(name: str, config: str, methods: tuple[str, ...], rate: float, words: str = "") -> tuple[Stage, Stage]:
    """The papers' experiment on armadillo: a sweep of rates, and further seeds at the best."""
    given = "fit_shape.py", f"shape_{config}.txt", f"{SHAPE} {words}", ("--mesh", "shapes/armadillo.obj"), methods
    swept = Stage(name, *given, seeds=(0,), rates={"": (rate,)}, sweep=True)
    return swept, Stage(f"{name}_seeds", *given, seeds=(1, 2, 3), best_of=name)


def _volume(name: str, words: str) -> Stage:
    """A quarter of an epoch of the protocol of volumes, in batches of a 25th of its size."""
    words += " --epochs 0.25 --N_points 20000 --i_eval 50 --i_spectrum 250 --i_weights 250 --resolution 0"
    source, rates = ("--volume", "volumes/dragon.mat.zip"), {"": (5e-3, 1e-3)}
    return Stage(name, "fit_shape.py", "shape_volume.txt", words, source, VOLUME_ARMS, (0,), rates)


def _image(name: str, words: str, **more: Any) -> Stage:
    return Stage(name, "fit_shape.py", "shape_image.txt", words, ("--image", "images/astronaut.png"), **more)


STAGES = {
    stage.name: stage
    for stage in (
        _nerf("screen", "fern", NERF_SCREEN, methods=ARMS, rates=SCREEN_RATES, sweep=True, seeds=(0,)),
        _nerf("screen_seed1", "fern", NERF_SCREEN, methods=ARMS, best_of="screen", seeds=(1,)),
        _final("final_fern", "fern", 3000),
        _final("final_flower", "flower", 1500),
        _fp32("fp32_flower", "flower", 1500),
        _fp32("fp32_fern", "fern", 3000),
        _fast("fast_screen", "fern", rates={"": (1.5e-2,)}, sweep=True, seeds=(0,)),
        _fast("fast_fern", "fern", best_of="fast_screen", seeds=(1, 2, 3)),
        _fast("fast_flower", "flower", best_of="fast_screen", seeds=(1, 2, 3)),
        *_shape("shape_relu", "relu", (*PLAIN, *SHAPE_RELU, *SHAPE_MUON), 2e-3),
        *_shape("shape_sine", "sine", SHAPE_OWN, 5e-4),
        *_shape("shape_gaussian", "gaussian", SHAPE_OWN, 5e-4),
        *_shape("shape_finer", "sine", SHAPE_OWN, 5e-4, "--activation finer"),
        _volume("volume_relu", "--activation relu"),
        _volume("volume_sine", "--activation sine --encoding none"),
        _volume("volume_gaussian", "--activation gaussian --encoding none"),
        _volume("volume_finer", "--activation finer --encoding none"),
        _image("image", IMAGE_RELU, methods=(*ARMS, "soap", "iga"), rates=IMAGE_RATES, sweep=True, seeds=(0,)),
        _image("image_seeds", IMAGE_RELU, methods=(*ARMS, "soap", "iga"), best_of="image", seeds=(1, 2, 3, 4, 5)),
    )
}
