"""Question answering: SQuAD with the paper's settings, to official scores."""
