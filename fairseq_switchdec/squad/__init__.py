"""Question answering by spans (section 4.1): reading, windows, answers, scores; the model is not needed for any."""
