"""Volume rendering: sampling along rays, proposals, compositing, rendering in chunks, iso values."""
