"""Question answering by spans (section 4.1): reading, windows, answers and scores; nothing here imports fairseq's models."""
