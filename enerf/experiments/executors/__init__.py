"""Executors: what trains the runs of a queue; see ``registry``."""
