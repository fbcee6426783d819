"""The site: settings, routes and the processes. Wiring only; what it wires lives in the apps."""

__version__ = "0.1.0"
