"""Image classifiers with normalized or conditioned weights."""
