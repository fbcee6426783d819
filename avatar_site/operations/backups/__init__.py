"""Backups of the database and of audio: made, listed, verified by restoring, restored."""
