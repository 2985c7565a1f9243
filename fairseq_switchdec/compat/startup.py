"""Imported by ``fairseq_switchdec.pth`` at every start of Python: waits until fairseq or hydra is imported.

A program that imports neither pays for one entry in ``sys.meta_path`` and gets nothing else. This module must import
nothing but ``sys`` (hence no ``from __future__``, here and in the packages it is in), and must not fail.
"""

import sys


class InstallOnFirstImport:
    """A finder that finds nothing: it turns the fixes on when fairseq or hydra is first looked for, and leaves."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in ("fairseq", "hydra"):
            if cls in sys.meta_path:
                sys.meta_path.remove(cls)
            from fairseq_switchdec.compat import install

            install()
        return None


if InstallOnFirstImport not in sys.meta_path:
    sys.meta_path.insert(0, InstallOnFirstImport)
