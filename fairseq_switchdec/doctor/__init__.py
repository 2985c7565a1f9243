"""What of an installation and its machine works, and what to do about the rest; nothing here needs what it looks at."""
