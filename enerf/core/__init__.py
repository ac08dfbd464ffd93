"""What everything else stands on: errors, shared types, files, images, random numbers, devices."""
