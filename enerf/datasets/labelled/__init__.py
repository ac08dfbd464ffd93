"""Images with labels, from a user's disk to batches for classifiers.

- ``stores``         folder or archive -> names and bytes
- ``pickles``        pickled arrays -> plain values; nothing else is built, nothing is run
- ``cifar``          the standard files of CIFAR-10 and CIFAR-100 -> images and labels
- ``idx``            MNIST's and Fashion-MNIST's files -> images and labels
- ``image_folders``  ``train/CLASS/*.png`` and its like -> images and labels
- ``decoding``       one image file -> pixels; splits whose images are decoded when they are asked for
- ``data``           the values that come out: splits, and the two of them with their classes
- ``reading``        path -> whatever of these lies there
- ``augmentation``   batch -> the same, shifted, flipped, mixed
- ``batches``        split -> batch of a step, the same whatever was asked for before
- ``synthetic``      generated pictures of geometric figures, written in each of the forms
"""
