"""The systems that are compared, a module each, imported by the worker that runs it alone."""
