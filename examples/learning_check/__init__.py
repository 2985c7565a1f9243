"""Does a policy learn to read its input? A task whose best decisions are known."""
