"""Occupancy and signed distance fields of meshes and point clouds, and pictures as fields."""
