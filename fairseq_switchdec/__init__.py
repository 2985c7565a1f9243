"""Switchable Decision (Zhang et al., ICML 2024) for fairseq's BART.

``--user-dir fairseq_switchdec`` makes fairseq import this package and then its ``tasks`` and ``models``, which register
everything users name on a command line. Importing the package alone loads neither torch nor fairseq.
"""

__version__ = "0.1.0"
