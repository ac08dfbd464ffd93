"""Meshes to labelled samples, and fields back to meshes.

- ``read``, ``write``, ``ply``  mesh and point cloud files
- ``topology``     edges, connected components, holes and orientation of faces
- ``mesh``         meshes normalized to a box, with a report and the map back to file coordinates
- ``solid``        winding number, occupancy and signed distance of points with respect to a mesh
- ``samples``      labelled samples of a solid
- ``point_cloud``  occupancy of the space around oriented points
- ``sample_pool``  samples prepared in the background, independent of timing
- ``cleanup``      removal of small components, decimation, smoothing
- ``synthetic``    generated shapes with known volumes
- ``isosurface``   extraction of meshes from scalar fields
- ``preview``      pictures of meshes and fields
"""
