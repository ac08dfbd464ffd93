"""Shading of normals: a light next to the camera, hemisphere ambient light, white background.

Back faces, which are visible where a mesh is open or inverted, have a color of their own.
"""

import numpy as np
from jaxtyping import Bool, Float

from enerf.geometry.preview.cameras import View

FRONT, BACK = (0.72, 0.74, 0.78), (0.80, 0.45, 0.36)
AMBIENT, SKY, LIGHT = 0.30, 0.15, 0.60  # weights of constant, hemisphere and diffuse light
GLOSS, SHINE = 0.12, 30.0
LIGHT_DIRECTION = (-0.4, 0.5, 0.77)  # in camera axes: right, up, backwards


def shade(
    normals: Float[np.ndarray, "*b 3"],
    directions: Float[np.ndarray, "*b 3"],
    hit: Bool[np.ndarray, "*b"],
    view: View,
    colors: Float[np.ndarray, "*b 3"] | None = None,
) -> Float[np.ndarray, "*b 3"]:
    """Colors in [0, 1] of ray hits; ``colors`` replaces the color of front faces."""
    axes = view.axes.numpy()
    lamp = np.array(LIGHT_DIRECTION) @ axes
    lamp = lamp / np.linalg.norm(lamp)
    up = np.array([0.0, 1.0, 0.0] if view.up == "y" else [0.0, 0.0, 1.0])
    behind = (normals * directions).sum(-1, keepdims=True) > 0
    facing = np.where(behind, -normals, normals)
    half = lamp - directions
    half = half / np.linalg.norm(half, axis=-1, keepdims=True)
    light = AMBIENT + SKY * (facing @ up + 1)[..., None] / 2 + LIGHT * np.maximum(facing @ lamp, 0)[..., None]
    base = np.where(behind, BACK, FRONT if colors is None else colors)
    gloss = GLOSS * np.maximum((facing * half).sum(-1, keepdims=True), 0) ** SHINE
    return np.where(hit[..., None], np.clip(base * light + gloss, 0, 1), 1.0)


def downsampled(pixels: Float[np.ndarray, "h w 3"], factor: int) -> Float[np.ndarray, "h2 w2 3"]:
    """Pixels averaged over blocks of ``factor``².

    >>> downsampled(np.arange(12.0).reshape(2, 2, 3), 2).tolist()
    [[[4.5, 5.5, 6.5]]]
    """
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    return np.asarray(pixels.reshape(height, factor, width, factor, 3).mean((1, 3)))
