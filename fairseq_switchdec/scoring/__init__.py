"""Scores of generated text. Importing this package loads no fairseq; `fairseq_scorer` registers ``--scoring rouge``."""
