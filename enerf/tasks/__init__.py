"""The tasks: NeRF, shape and classifier, each a slice with the same file names."""
