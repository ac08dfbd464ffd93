"""Memory that training a shape field needs at least, from its options."""

from pathlib import Path

import torch

from enerf.core import memory
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.shape import ShapeField
from enerf.geometry import volume_files
from enerf.tasks.shape import build
from enerf.tasks.shape.config import ShapeConfig

_SAMPLE = 40  # bytes of a sample of the pool while it is labeled: its point in float64 and float32, and its label


def training_bytes(config: ShapeConfig) -> dict[str, int]:
    """Return the bytes of field, activations, pool and volume by the options that decide them; a lower bound.

    Activations are those of the hidden layers at the points of a step, kept for the backward pass.
    """
    m, s = config.model, config.samples
    value_bytes = 4 if config.train.precision == "fp32" or m.activation != "relu" else 2
    return {
        "options --netwidth, --netdepth, --fourier_features, --hash_log2_entries and --hash_levels": (
            memory.trained_bytes(_field_on_meta(config))
        ),
        "options --N_points, --netwidth and --netdepth": s.N_points * m.netdepth * m.netwidth * value_bytes,
        "option --pool": 0 if config.data.image or config.data.volume else s.pool * _SAMPLE,
        "option --volume": (
            volume_files.announced_bytes(Path(config.data.volume).expanduser()) if config.data.volume else 0
        ),
    }


def _field_on_meta(config: ShapeConfig) -> ShapeField:
    """Return the field without values: sizes only."""
    m, inputs = config.model, 2 if config.data.image else 3
    grid = make_grid(m.hash_levels, m.hash_features, m.hash_log2_entries, m.hash_coarsest, m.hash_finest)
    with torch.device("meta"):
        encoder = build.encoder(m.encoding, inputs, m.multires, m.fourier_features, m.fourier_scale, grid)
        return ShapeField(encoder, m.netdepth, m.netwidth, 3 if config.data.image else 1, skip_at=m.netskip)
