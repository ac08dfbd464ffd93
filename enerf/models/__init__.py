"""Images to logits: the classifiers of the weight-conditioning paper, in their forms for images of 28 to 64 pixels.

- ``normalisers``  what convolutional classifiers are built of: a convolution, its normalisation, a ReLU; widths
- ``inception``    the small Inception of Zhang et al. 2017
- ``googlenet``    GoogLeNet for small images
- ``densenet``     DenseNet-BC of any depth and growth
- ``resnet``       ResNet-18 and ResNet-50 for small images
- ``vit``          vision transformers of any size
- ``build``        the door: name and numbers -> a freshly started network; treatment -> a conditioned one

Every network takes images ``b channels size size``, in any memory format, and returns logits ``b classes``; its output
layer is called ``head``. None has dropout. Importing runs nothing.
"""
