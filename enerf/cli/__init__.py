"""Command line: entry points, log lines, exit codes."""

from enerf.core import openmp

openmp.wait_briefly()  # before torch is imported
