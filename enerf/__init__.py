"""enerf: radiance fields and neural shapes with conditioned weights.

The rooms, in the order data walks through them:

- ``types``         the values that travel between rooms
- ``files``         files written whole or not at all
- ``placed``        where a run's results are
- ``options``       every option: name, default, help, bounds
- ``shape_options``  those of shapes; ``classifier_options``  those of classifiers
- ``methods``       what comparisons compare: names -> changed options
- ``config``        command lines and ``.txt`` files -> options
- ``machine``       device, matrix-product precision, memory: decided once
- ``seeds``         streams of random numbers, by seed and step
- ``compiler``      small C++ kernels, compiled for this processor at first use
- ``images``        read, downsample, write pictures and videos
- ``conditioning``  the library: preconditioners of weight matrices, what they are compared with, diagnostics
- ``optim``         the library's optimisers: preconditioned, with intrinsic L1 and L2
- ``scenes``        1. files -> cameras -> rays
- ``fields``        2. points -> density and colour, or a shape; ``backends`` chooses the code that evaluates them
- ``shapes``        2′. meshes -> labelled samples, and fields -> meshes -> pictures
- ``labelled``      1′′. labelled images -> batches
- ``classifiers``   2′′. images -> logits: the papers' CNNs and transformers
- ``rendering``     3. rays + field -> pixels
- ``training``      4. residual -> weights
- ``evaluation``    5. pictures -> numbers -> tables
- ``runs``          a scene and its field together: prepared, opened, looked at
- ``shape_runs``    a shape and its field together
- ``classifier_runs``  labelled images and their network together
- ``fitting``       training with records, whatever is trained
- ``subjects``      what meshes are extracted from: a run's field, and the way to the user's coordinates
- ``snapshots``     checkpoints opened to be analysed
- ``results``       what a run is measured to be
- ``shape_results`` what a shape run is measured to be
- ``classifier_results``  what a classifier run is measured to be
- ``run_nerf``      the hallway that trains: scene folder -> field -> metrics, frames
- ``run_shape``     the hallway of shapes: mesh, points or picture -> field -> metrics, mesh
- ``run_classifier``  the hallway of classifiers: labelled images -> network -> accuracy
- ``run_compare``   several methods, learning rates and seeds -> one table, curves, crops
- ``run_extract``   finished runs -> meshes in the user's coordinates, pictures of them
- ``run_analysis``  checkpoints -> condition numbers, row norms and Hessian extremes over steps
"""

__version__ = "0.1.0"
