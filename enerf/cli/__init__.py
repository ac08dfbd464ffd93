"""Command line: entry points, log lines, exit codes."""
