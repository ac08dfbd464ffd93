"""Options of ``enerf process``. Imports no torch."""

from dataclasses import dataclass

from enerf.config.options import option

CAMERAS = ("auto", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
MOST_FRAMES = 5000


@dataclass(frozen=True)
class ProcessOptions:
    """processing of photographs or of a video."""

    out: str = option("", "folder of the scene, which is created; required", affects="neutral", is_path=True)
    overwrite: bool = option(
        False, "replace a scene that this command has made in the folder; other folders are refused", affects="neutral"
    )
    camera: str = option(
        "auto",
        "camera model; auto: OPENCV for 20 or more photographs of a phone (by their EXIF data), else SIMPLE_RADIAL",
        choices=CAMERAS,
        affects="data",
    )
    camera_per: str = option(
        "auto",
        "photographs that share a camera; auto: those of one folder, size, device and focal length (by EXIF data); "
        "image: none",
        choices=("auto", "all", "folder", "image"),
        affects="data",
    )
    principal_point: str = option(
        "auto",
        "center: of the image; free: computed, for cropped photographs; auto: center, unless the photographs clearly "
        "show another one",
        choices=("auto", "center", "free"),
        affects="data",
    )
    masks: str = option(
        "",
        "folder of masks, named as the photographs; empty: masks beside the photographs, in usual names",
        affects="data",
        is_path=True,
    )
    invert_masks: bool = option(
        False, "ignore the pixels where masks are not zero, instead of those where they are", affects="data"
    )
    frames: int = option(60, "number of frames taken from a video", at_least=3, at_most=MOST_FRAMES, affects="data")
    frame_format: str = option(
        "jpg", "file format of the frames of a video: jpg (quality 97) or png", choices=("jpg", "png"), affects="data"
    )
    features: int = option(
        4096, "number of SIFT key points of a photograph", at_least=100, at_most=1 << 16, affects="data"
    )
    max_size: int = option(
        1600,
        "pixels of the longer side at which key points are detected; larger photographs are reduced for that alone",
        at_least=100,
        at_most=1 << 15,
        affects="data",
    )
    pairs: str = option(
        "auto",
        "pairs of photographs that are matched; exhaustive: all; sequential: neighbors in the order of names, and "
        "those with the most similar key points; auto: exhaustive for up to 80 photographs that are no video",
        choices=("auto", "exhaustive", "sequential"),
        affects="data",
    )
    mapper: str = option(
        "incremental",
        "structure from motion; incremental: photograph after photograph; global: all at once, faster for hundreds",
        choices=("incremental", "global"),
        affects="data",
    )
    threads: int = option(0, "number of threads; 0: all cores", at_least=0, at_most=1024, affects="neutral")
