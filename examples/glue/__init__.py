"""Classification: GLUE's tasks with the paper's settings, to scores and submission files."""
