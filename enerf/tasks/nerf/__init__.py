"""Task ``nerf``: NeRF and E-NeRF of posed images."""
