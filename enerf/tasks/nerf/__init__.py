"""NeRF and E-NeRF of posed photographs."""
