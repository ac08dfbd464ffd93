"""Interactive viewer of runs in a browser, by viser: server, rendering, camera paths."""
