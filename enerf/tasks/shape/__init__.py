"""Occupancy and signed distance fields fitted to meshes and point clouds, and images fitted as 2D fields."""
