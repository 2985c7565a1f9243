"""What several examples need; nothing here imports an example."""
