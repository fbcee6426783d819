"""Voices over HTTP. Another person's voice does not exist: 404."""
