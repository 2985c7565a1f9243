"""Models of Hugging Face's formats: ``python -m fairseq_switchdec import``, and ``export --to hugging-face``.

A model family is one table of tensor names, read from left to right by the one and from right to left by the other
(``families``). Neither needs transformers, runs anything that a file holds, or asks the network.
"""
