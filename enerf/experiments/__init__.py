"""Several runs together: comparison, analysis; and meshes of finished runs."""
