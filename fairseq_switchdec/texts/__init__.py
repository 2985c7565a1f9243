"""Texts to tokens and back, for the models of Hugging Face's releases. Importing this package loads nothing."""
