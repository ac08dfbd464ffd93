"""Image classifiers of the weight-conditioning paper, in their variants for images of 28 to 64 pixels.

- ``norms``      building blocks of convolutional networks: convolution, normalization, ReLU; channel scaling
- ``inception``  the small Inception of Zhang et al. 2017
- ``googlenet``  GoogLeNet for small images
- ``densenet``   DenseNet-BC of any depth and growth rate
- ``resnet``     ResNet-18 and ResNet-50 for small images
- ``vit``        vision transformers of any size

Every network takes images ``b channels size size``, in any memory format, and returns logits ``b classes``; its output
layer is called ``head``. None has dropout. ``tasks.classifier.build`` makes networks from options and conditions them.
"""
