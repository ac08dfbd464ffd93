"""Scenes of posed photographs: file formats, camera poses, rays, coordinate frames, and a synthetic scene."""
