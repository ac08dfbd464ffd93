"""From photographs or a video to a posed scene: structure from motion by pycolmap, in a process of its own."""
