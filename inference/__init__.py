"""The models' process and its client. Knows no Django."""
