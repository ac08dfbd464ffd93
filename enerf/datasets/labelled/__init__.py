"""Labelled images: from files to batches for classifiers.

- ``archive``        files of a folder or archive, by name
- ``safe_pickle``    pickled arrays without executing code
- ``cifar``          the standard files of CIFAR-10 and CIFAR-100
- ``idx``            the files of MNIST and Fashion-MNIST
- ``image_folders``  ``train/CLASS/*.png`` and similar layouts
- ``decoding``       image files to pixels; splits whose images are decoded on demand
- ``dataset``        splits, and data sets of two splits with their classes
- ``load``           a path to the data set in it, whatever its format
- ``augmentation``   shifts, flips, crops and mixup of batches
- ``loader``         the batch of each step, independent of what was loaded before
- ``synthetic``      generated images of geometric figures, written in each of the formats
"""
