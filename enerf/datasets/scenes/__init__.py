"""Files to cameras to rays."""
