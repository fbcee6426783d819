"""Conversations over HTTP. Another person's conversation does not exist: 404."""
