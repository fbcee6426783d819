"""Models by name: the catalogue, the folder they lie in, and how they get there (`python -m inference.models`)."""
