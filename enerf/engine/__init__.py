"""Training, whatever is trained: loop, checkpoints, resume, schedules, journal."""
