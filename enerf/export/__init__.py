"""Pages that show results in a browser without a server: planes of photographed scenes, meshes."""
