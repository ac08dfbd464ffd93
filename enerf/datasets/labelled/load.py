"""Load labelled images from CIFAR files, idx files, image folders, or archives of these."""

from pathlib import Path, PurePosixPath

from enerf.core import image_files
from enerf.core.errors import InputError
from enerf.datasets.labelled import cifar, dataset, idx, image_folders
from enerf.datasets.labelled.archive import open_archive
from enerf.datasets.labelled.dataset import LabelledImages, Split

_LOSSY = (".jpg", ".jpeg")


def load(path: Path, *, image_size: int = 0, test: str = "") -> LabelledImages:
    """Load the data set in a folder, in its only subfolder that contains one, or in an archive.

    Parameters
    ----------
    path
        Folder, or archive (.tar, .tar.gz, .tar.xz, .tar.bz2, .zip), which is read into memory.
    image_size
        Side length to which the images of folders are resized; 0 keeps their size, which must be the same for all.
    test
        Folder of test images next to ``train``; empty for the first of ``test``, ``val`` and ``validation``.

    Raises
    ------
    InputError
        If the path does not exist, has none of these formats, or is damaged or inconsistent.
    """
    if image_size < 0:
        raise InputError(f"--image_size is {image_size}, expected 0 (the size of the files) or more")
    archive = open_archive(Path(path))
    train: Split
    tests: Split
    if archive.kind == "folders":
        train, tests, classes, channels, size = image_folders.load(archive, image_size, test)
    elif image_size or test:
        option = "--image_size" if image_size else "the name of a test folder"
        raise InputError(
            f"{archive.where()} holds files of {archive.kind}, expected {option} only for folders of images"
        )
    else:
        first, second, classes = (idx if archive.kind == "idx" else cifar).load(archive)
        train, tests, (channels, size) = first, second, first.images.shape[1:3]
    mean, std = dataset.statistics(train)
    lossy = archive.kind == "folders" and any(name.lower().endswith(_LOSSY) for name in archive.names)
    return LabelledImages(
        name=archive.name,
        classes=classes,
        train=train,
        test=tests,
        channels=channels,
        size=size,
        mean=mean,
        std=std,
        note="JPEG, lossy" if lossy else "",
    )


def files_of(folder: Path) -> list[Path]:
    """Files of the data set in a folder, without others beside them, such as results that are written there.

    Raises
    ------
    InputError
        If the folder has none of the formats, or cannot be listed.
    """
    archive = open_archive(folder)
    names = archive.names
    if archive.kind == "folders":
        tops = ("train", *image_folders.TESTS)
        names = tuple(n for n in names if n.split("/")[0] in tops and image_files.is_image_name(PurePosixPath(n).name))
    found = [archive.path / archive.root / name for name in names]
    return [path for path in found if path.is_file()]
