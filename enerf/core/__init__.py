"""Base package, which imports no other: errors, shared types, file and image I/O, random numbers, devices."""
