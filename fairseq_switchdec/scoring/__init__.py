"""Scorers for fairseq's ``--scoring``; importing this package registers them."""

from fairseq_switchdec.scoring import rouge  # noqa: F401
