"""A path to labelled images, whatever lies there: CIFAR's files, idx files, folders of images, or archives of these."""

from pathlib import Path

from enerf.core.errors import InputError
from enerf.datasets.labelled import archive, cifar, dataset, idx, image_folders
from enerf.datasets.labelled.dataset import LabelledImages, Split

_LOSSY = (".jpg", ".jpeg")


def load(path: Path, *, image_size: int = 0, test: str = "") -> LabelledImages:
    """The data set that lies in a folder, in the one folder of it that holds one, or in an archive.

    Parameters
    ----------
    path
        Folder, or archive (.tar, .tar.gz, .tar.xz, .tar.bz2, .zip), which is read into memory.
    image_size
        Side that the images of folders are resized to, when they are asked for; 0 for their own, which has to be one.
    test
        Folder of test images, beside ``train``; empty for the first of ``test``, ``val`` and ``validation``.

    Raises
    ------
    InputError
        If nothing is there, it is none of these, or it is damaged or inconsistent.
    """
    if image_size < 0:
        raise InputError(f"--image_size is {image_size}, expected 0 (as the images are) or more")
    store = archive.opened(Path(path))
    train: Split
    held: Split
    if store.kind == "folders":
        train, held, classes, channels, size = image_folders.load(store, image_size, test)
    elif image_size or test:
        option = "--image_size" if image_size else "the name of a test folder"
        raise InputError(f"{store.where()} holds files of {store.kind}, expected {option} only for folders of images")
    else:
        first, second, classes = (idx if store.kind == "idx" else cifar).load(store)
        train, held, (channels, size) = first, second, first.images.shape[1:3]
    mean, std = dataset.statistics(train)
    lossy = store.kind == "folders" and any(name.lower().endswith(_LOSSY) for name in store.names)
    return LabelledImages(
        name=store.name,
        classes=classes,
        train=train,
        test=held,
        channels=channels,
        size=size,
        mean=mean,
        std=std,
        note="JPEG, lossy" if lossy else "",
    )
