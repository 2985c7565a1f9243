"""The first command: a small switchable BART from docstrings, and what it saves."""
