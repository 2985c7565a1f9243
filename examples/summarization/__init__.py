"""Summarization: CNN/DM and XSum with the paper's settings, from raw text to ROUGE. See README.md."""
