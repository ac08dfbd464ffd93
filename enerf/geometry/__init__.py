"""Meshes to labelled samples, and fields back to meshes.

- ``ply``       what trimesh leaves unread in PLY files: triangle strips and the normals of points
- ``reading``   file -> vertices and faces, or points and normals, as the file has them
- ``topology``  faces -> edges, parts, holes, and which way is out
- ``meshes``    file -> mesh in a box, a report, and the way back to the file's coordinates
- ``inside``    mesh and points -> winding number, occupancy, signed distance
- ``points``    solid and generator -> labelled samples
- ``clouds``    oriented points -> what they enclose
- ``pools``     samples prepared in the background, the same whatever the timing
- ``pictures``  pictures as fields of the plane
- ``synthetic`` generated shapes with known volumes
"""
