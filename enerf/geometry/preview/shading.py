"""Normals to colours: a lamp beside the camera, a brighter sky than ground, white where nothing is.

The back of a surface, which is seen where a mesh is open or turned inside out, is shown in its own colour.
"""

import numpy as np
from jaxtyping import Bool, Float

from enerf.geometry.preview.cameras import View

FRONT, BACK = (0.72, 0.74, 0.78), (0.80, 0.45, 0.36)
AMBIENT, SKY, LAMP = 0.30, 0.15, 0.60  # their sum, and the highlight, are 1 at the brightest
GLOSS, SHINE = 0.12, 30.0
LAMP_AT = (-0.4, 0.5, 0.77)  # to the right, upwards, back to the camera


def shade(
    normals: Float[np.ndarray, "*b 3"],
    directions: Float[np.ndarray, "*b 3"],
    hit: Bool[np.ndarray, "*b"],
    view: View,
    colors: Float[np.ndarray, "*b 3"] | None = None,
) -> Float[np.ndarray, "*b 3"]:
    """Colours in [0, 1] of what rays hit; ``colors`` takes the place of the front's."""
    axes = view.axes.numpy()
    lamp = np.array(LAMP_AT) @ axes
    lamp = lamp / np.linalg.norm(lamp)
    up = np.array([0.0, 1.0, 0.0] if view.up == "y" else [0.0, 0.0, 1.0])
    behind = (normals * directions).sum(-1, keepdims=True) > 0
    facing = np.where(behind, -normals, normals)
    half = lamp - directions
    half = half / np.linalg.norm(half, axis=-1, keepdims=True)
    light = AMBIENT + SKY * (facing @ up + 1)[..., None] / 2 + LAMP * np.maximum(facing @ lamp, 0)[..., None]
    base = np.where(behind, BACK, FRONT if colors is None else colors)
    gloss = GLOSS * np.maximum((facing * half).sum(-1, keepdims=True), 0) ** SHINE
    return np.where(hit[..., None], np.clip(base * light + gloss, 0, 1), 1.0)


def smaller(pixels: Float[np.ndarray, "h w 3"], finer: int) -> Float[np.ndarray, "h2 w2 3"]:
    """Each square of ``finer``² pixels as one, their mean.

    >>> smaller(np.arange(12.0).reshape(2, 2, 3), 2).tolist()
    [[[4.5, 5.5, 6.5]]]
    """
    height, width = pixels.shape[0] // finer, pixels.shape[1] // finer
    return np.asarray(pixels.reshape(height, finer, width, finer, 3).mean((1, 3)))
