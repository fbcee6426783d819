"""Logs and traces, the same in every process. Imports no Django."""
