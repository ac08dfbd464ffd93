"""Registry of tasks: their names, and where their parts are. The only place that lists the tasks.

Parts are named as ``module:attribute`` and imported when they are used, so that command-line help and errors import no
torch. Another package adds a task with ``register``.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enerf.core.errors import InputError

# An object, or its location: "module:attribute".
Part = str | Callable[..., Any] | object


@dataclass(frozen=True)
class Task:
    """The parts of one task.

    Attributes
    ----------
    kind
        Name of the task: in checkpoints, and in ``enerf compare KIND``.
    command
        Its subcommand of ``enerf``.
    summary
        One line for the help of the command.
    config
        Subclass of ``RunConfig``.
    methods
        ``config.methods.Methods``, for comparisons.
    train
        Configuration -> metrics, or None with ``--no_final_eval``.
    evaluate
        Folder of a run, device, new path of its data (or "") -> metrics, measured again.
    table
        Metrics of several runs -> rows of cells, the first of them headings.
    write_comparison
        Variant -> metrics of its seeds, and the base configuration -> table as text; writes table and curves.
    succeeded
        Metrics of a run -> whether it has learned anything, for tables. Optional.
    draw_comparison
        Base configuration, and variant -> configuration of its first seed; draws pictures at the end. Optional.
    train_all
        Configuration -> metrics of several runs, where one configuration can mean several. Optional.
    resolve
        Configuration -> configuration with values that depend on its data filled in, such as epochs as steps. Optional.
    resolve_backend
        Configuration, and the ``Resolved`` of an earlier run or None -> backend and precision of all variants of a
        comparison; ``train`` then takes them as its second argument. Optional.
    input_files
        Configuration -> files of its data, whose hashes tell whether a finished run is still that of the data.
        Optional.
    mesh_source
        Folder and ``MeshSourceSettings`` -> ``MeshSource``, for mesh extraction. Optional.
    views
        Folder of a run, device, new place of its scene (or "") -> object with ``scene``, ``render``, ``write_video``.
        Optional.
    planes
        Folder of a run, number of planes (0: automatic), seconds of tuning, whether to make them again, device, new
        place of its scene (or ""); by name ``any_options``, whether to take those that were made with others -> path of
        its baked planes. Optional.
    live
        Options of the viewer -> object with ``watch``, a function from a prepared run to a ``Hook`` that shows it, and
        ``close``, for ``--viewer``. ``train`` (or ``train_all``) takes ``watch`` then. Optional.
    probe
        Saved options and ``ProbeSettings`` -> ``RunProbe``, for the analysis of checkpoints. Optional.
    presentation
        ``reporting.presentation.Presentation``: curves, figures and pictures of a report. Optional.
    export_points
        Folder of a run, new folder, ``ExportPointsOptions`` -> paths of what was written. Optional.
    """

    kind: str
    command: str
    summary: str
    config: Part
    methods: Part
    train: Part
    evaluate: Part
    table: Part
    write_comparison: Part
    succeeded: Part = ""
    draw_comparison: Part = ""
    train_all: Part = ""
    resolve: Part = ""
    resolve_backend: Part = ""
    input_files: Part = ""
    mesh_source: Part = ""
    views: Part = ""
    planes: Part = ""
    live: Part = ""
    probe: Part = ""
    presentation: Part = ""
    export_points: Part = ""

    def has(self, part: str) -> bool:
        """Return whether the task has an optional part."""
        return bool(getattr(self, part))

    def load(self, part: str) -> Any:
        """Return one of the parts, imported if needed."""
        found = getattr(self, part)
        if not isinstance(found, str):
            return found
        module, _, name = found.partition(":")
        return getattr(importlib.import_module(module), name)


_TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """Add a task to those that commands know, in the place of one with the same ``kind``."""
    _TASKS[task.kind] = task


def unregister(kind: str) -> None:
    """Remove a task."""
    del _TASKS[kind]


def tasks() -> list[Task]:
    """Return all tasks in the order of their registration."""
    return list(_TASKS.values())


def task(kind: str) -> Task:
    """Return the task of a kind.

    Raises
    ------
    InputError
        If there is none.
    """
    if kind not in _TASKS:
        raise InputError(f"found the task {kind!r}, expected one of {', '.join(_TASKS)}")
    return _TASKS[kind]


def with_part(part: str, folder: Path) -> tuple[Task, dict[str, Any]]:
    """Return the task of a run's folder and the content of its newest checkpoint.

    Raises
    ------
    InputError
        If the folder is not a run, or its task does not have this part.
    """
    from enerf.engine import checkpoint

    content, _ = checkpoint.newest(folder, [each.kind for each in tasks() if each.has(part)])
    return task(checkpoint.kind_of(content["config"])), content


register(
    Task(
        kind="nerf",
        command="train",
        summary="train a NeRF or, with --equilibrate, an E-NeRF of posed photographs",
        config="enerf.tasks.nerf.config:NerfConfig",
        methods="enerf.config.methods:FIELDS",
        train="enerf.tasks.nerf.train:train",
        evaluate="enerf.tasks.nerf.evaluate:evaluate_folder",
        table="enerf.tasks.nerf.report:table",
        write_comparison="enerf.tasks.nerf.comparison:write_all",
        succeeded="enerf.tasks.nerf.comparison:succeeded",
        draw_comparison="enerf.tasks.nerf.comparison:draw_test_view",
        resolve_backend="enerf.tasks.nerf.setup:resolve_backend",
        input_files="enerf.tasks.nerf.setup:input_files",
        mesh_source="enerf.tasks.nerf.mesh:mesh_source",
        views="enerf.tasks.nerf.opened:open_views",
        planes="enerf.tasks.nerf.planes:bake_folder",
        live="enerf.viewer.live:LiveViewer",
        probe="enerf.tasks.nerf.probe:open_probe",
        presentation="enerf.tasks.nerf.presentation:PRESENTATION",
        export_points="enerf.tasks.nerf.export_points:export",
    )
)
register(
    Task(
        kind="shape",
        command="shape",
        summary="fit an occupancy or a signed distance to a mesh, a point cloud or a volume, or a field to an image",
        config="enerf.tasks.shape.config:ShapeConfig",
        methods="enerf.config.methods:SHAPES",
        train="enerf.tasks.shape.train:train",
        train_all="enerf.tasks.shape.train:train_all",
        resolve="enerf.tasks.shape.setup:resolve_steps",
        evaluate="enerf.tasks.shape.evaluate:evaluate_folder",
        table="enerf.tasks.shape.report:table",
        write_comparison="enerf.tasks.shape.comparison:write_all",
        resolve_backend="enerf.tasks.shape.setup:resolve_backend",
        input_files="enerf.tasks.shape.setup:input_files",
        mesh_source="enerf.tasks.shape.mesh:mesh_source",
        live="enerf.viewer.live_shapes:LiveShapeViewer",
        probe="enerf.tasks.shape.probe:open_probe",
        presentation="enerf.tasks.shape.presentation:PRESENTATION",
    )
)
register(
    Task(
        kind="classifier",
        command="classify",
        summary="train an image classifier with normalized or conditioned weights",
        config="enerf.tasks.classifier.config:ClassifierConfig",
        methods="enerf.tasks.classifier.methods:CLASSIFIERS",
        train="enerf.tasks.classifier.train:train",
        evaluate="enerf.tasks.classifier.evaluate:evaluate_folder",
        table="enerf.tasks.classifier.report:table",
        write_comparison="enerf.tasks.classifier.comparison:write_all",
        resolve="enerf.tasks.classifier.setup:resolve_steps",
        resolve_backend="enerf.tasks.classifier.setup:resolve_backend",
        input_files="enerf.tasks.classifier.setup:input_files",
        probe="enerf.tasks.classifier.probe:open_probe",
        presentation="enerf.tasks.classifier.presentation:PRESENTATION",
    )
)
