"""Isosurface extraction: marching cubes on a sparse grid."""
