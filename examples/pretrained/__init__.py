"""A pretrained language model, SmolLM2-135M, that learns to summarize and what of itself to skip."""
