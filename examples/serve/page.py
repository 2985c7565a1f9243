"""``GET /``: a page to try the service with, which shows of one text what ``report html`` shows of each input."""

from __future__ import annotations

from importlib.resources import files
from string import Template

from fairseq_switchdec.pictures.page import document

from .body import Limits

#: Parts of the run's page that show one input; this page's own program follows them.
SHARED = ("text.js", "detail.js")
#: The page is nobody's frame, and its texts are not kept.
HEADERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def build_page(limits: Limits) -> str:
    """The page as one file, which asks nothing of any other machine."""
    style = document.read("page.css") + read("page.css")
    program = "\n".join([*map(document.read, SHARED), read("page.js")])
    return Template(read("page.html")).substitute(
        policy=document.markup(document.policy(style, program, "connect-src 'self'", "img-src data:")),
        style=style,
        program=program,
        beam=limits.beam,
        length=limits.length,
    )


def read(name: str) -> str:
    """A file beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
