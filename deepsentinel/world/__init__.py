"""The demo world: a small, seeded, imaginary but physically sensible piece of Earth, as pure functions."""
