"""From a docstring to a fair (body, summary) pair in plain words, and telling near duplicates."""

from __future__ import annotations

import re
import zlib

import numpy as np

BODY_WORDS = (25, 400)
SUMMARY_WORDS = (3, 40)

PROMPT = re.compile(r"\s*(>>> |\.\.\. |In \[\d+\]: )")
SIGNATURE = re.compile(r"[\w.]+\s*\(.*\)(\s*->.*)?$", re.DOTALL)
UNDERLINE = re.compile(r"\s*([-=~^*#\"'`+.:])\1{2,}\s*$")
DIRECTIVE = re.compile(r"\s*\.\. ")
ROLE = re.compile(r":[a-zA-Z:+-]+:`~?\.?([^`<]*?)\s*(?:<[^`>]*>)?`_*")
QUOTED = re.compile(r"`+([^`]*)`+_*")
MARKS = re.compile(r"[-=+|]{4,}|\*\*|\\|::(?=\s|$)")
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)\s+(?=[A-Z\"'(])")


def split_docstring(text: str) -> tuple[str, str] | None:
    """(body, summary) of a docstring, each on one line, or None when it does not make a fair pair.

    The summary is the first sentence, the body all that follows. The body does not repeat the summary.
    """
    paragraphs = [paragraph for paragraph in re.split(r"\n\s*\n", text.strip()) if paragraph.strip()]
    if paragraphs and SIGNATURE.match(paragraphs[0].strip()):
        del paragraphs[0]
    if not paragraphs:
        return None
    summary, *rest = SENTENCE_END.split(_plain(paragraphs[0]), maxsplit=1)
    words = " ".join(rest + [_plain(paragraph) for paragraph in paragraphs[1:]]).split()[: BODY_WORDS[1]]
    summary_words = summary.split()
    if not SUMMARY_WORDS[0] <= len(summary_words) <= SUMMARY_WORDS[1] or len(words) < BODY_WORDS[0]:
        return None
    if _prose_share(summary_words) < 0.6 or _prose_share(words) < 0.4:
        return None
    body = " ".join(words)
    return None if letters(summary) in letters(body) else (body, summary)


def _plain(paragraph: str) -> str:
    """One paragraph without prompts, outputs of doctests, directives, markup and line breaks."""
    kept, in_doctest, underlined = [], False, False
    for line in paragraph.splitlines():
        prompt = PROMPT.match(line)
        if prompt:
            in_doctest = True
            kept.append(line[prompt.end() :])
        elif UNDERLINE.match(line):
            underlined = True
        elif not in_doctest and not DIRECTIVE.match(line):
            kept.append(line)
    if underlined and len(kept) == 1:
        return ""  # a heading that stands alone
    return " ".join(MARKS.sub(" ", QUOTED.sub(r"\1", ROLE.sub(r"\1", " ".join(kept)))).split())


def _prose_share(words: list[str]) -> float:
    """Share of plain words: low in tables, formulas and code."""
    return sum(word.strip(".,;:()'\"").isalpha() and word.isascii() for word in words) / len(words)


def letters(text: str) -> str:
    """What is left of a text without case, digits and punctuation."""
    return " ".join(re.findall(r"[a-z]+", text.lower()))


class NearDuplicates:
    """Has a text been seen that shares most of its five-word runs? Min-hash with banding (Broder, 1997)."""

    BANDS, ROWS, RUN, ALIKE = 12, 3, 5, 0.8
    PRIME = np.uint64((1 << 31) - 1)

    def __init__(self) -> None:
        rng = np.random.RandomState(0)
        shape = (self.BANDS * self.ROWS, 1)
        self.factors = rng.randint(1, int(self.PRIME), shape).astype(np.uint64)
        self.offsets = rng.randint(0, int(self.PRIME), shape).astype(np.uint64)
        self.signatures: list[np.ndarray] = []
        self.buckets: dict[tuple[int, bytes], list[int]] = {}

    def seen(self, text: str) -> bool:
        """True when ``text`` is nearly a former one; else it is remembered."""
        words = letters(text).split()
        runs = {" ".join(words[i : i + self.RUN]) for i in range(max(1, len(words) - self.RUN + 1))}
        hashes = np.array([zlib.crc32(run.encode()) for run in runs], dtype=np.uint64) % self.PRIME
        signature = ((self.factors * hashes + self.offsets) % self.PRIME).min(axis=1)
        keys = [(i, band.tobytes()) for i, band in enumerate(signature.reshape(self.BANDS, self.ROWS))]
        candidates = {index for key in keys for index in self.buckets.get(key, ())}
        if any((self.signatures[index] == signature).mean() >= self.ALIKE for index in candidates):
            return True
        for key in keys:
            self.buckets.setdefault(key, []).append(len(self.signatures))
        self.signatures.append(signature)
        return False
