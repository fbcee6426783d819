"""One call as a pure machine: values in, values out. Imports no event loop, no engine, no Django."""
