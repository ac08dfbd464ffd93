"""Keys that instant-ngp and nerfstudio define in ``transforms.json``, and what becomes of each.

Sources: instant-ngp's ``nerf_loader.cu`` and its converters ``colmap2nerf.py``, ``record3d2nerf.py`` and
``nerfcapture2nerf.py``; nerfstudio's documentation, "Data conventions", its class ``Nerfstudio``, and what its command
``ns-process-data`` writes for COLMAP, Metashape, Polycam, RealityCapture, Record3D, ODM and Project Aria.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from enerf.datasets.scenes import transforms_cameras

SPLITS = ("train_filenames", "val_filenames", "test_filenames")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys of which the presence shows the program that the file is for.
_OF_INSTANT_NGP = _words(
    "aabb aabb_scale black_transparent depth_path driver_parameters enable_depth_loading enable_ray_loading envmap "
    "fix_premult from_mitsuba importance_sampling integer_depth_scale is_fisheye n_extra_learnable_dims n_frames "
    "normal_mts_args offset render_aabb rolling_shutter scale sharpen sharpness sharpness_discard_threshold "
    "transform_matrix_end transform_matrix_start up white_transparent x_fov y_fov"
)
_OF_NERFSTUDIO = _words(
    "applied_scale applied_transform camera_model colmap_im_id depth_file_path distortion_params fisheye_crop_radius "
    "mask_path orientation_override ply_file_path"
) | frozenset(SPLITS)
# Read by neither program: written by converters and in NeRF's synthetic data.
_HARMLESS = _words("fovx fovy rotation time timestamp")
_READ = frozenset({"frames", "file_path", "transform_matrix", "mask_path", *SPLITS}) | transforms_cameras.KEYS


def is_for_instant_ngp(content: Mapping[str, Any], frames: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a file has keys that only instant-ngp defines, and none that only nerfstudio does.

    >>> is_for_instant_ngp({"aabb_scale": 4}, []), is_for_instant_ngp({"aabb_scale": 4, "camera_model": "OPENCV"}, [])
    (True, False)
    """
    keys = set(content).union(*frames)
    return bool(keys & _OF_INSTANT_NGP) and not keys & _OF_NERFSTUDIO


def unread(keys: set[str], used: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys that are understood and not used, and unknown keys; both sorted.

    Parameters
    ----------
    keys
        Those of the file and of its frames.
    used
        Those that were used, beyond the ones that always are.

    >>> unread({"frames", "up", "colour", "applied_scale"}, {"applied_scale"})
    (('up',), ('colour',))
    """
    known = _OF_INSTANT_NGP | _OF_NERFSTUDIO | _HARMLESS
    rest = keys - _READ - used
    return tuple(sorted(rest & known)), tuple(sorted(rest - known))
