"""What of an installation and its machine works, and what to do about the rest; works itself where they do not."""
