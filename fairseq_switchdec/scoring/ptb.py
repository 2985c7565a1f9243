"""Penn Treebank tokenization by Stanford CoreNLP, as fairseq's BART recipe does before ROUGE."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from ..errors import UserError

TOKENIZER = "edu.stanford.nlp.process.PTBTokenizer"


def find_jar(given: str | None) -> str:
    """CoreNLP's jar: the one given, or the one on ``CLASSPATH``.

    Raises:
        UserError: there is none.
    """
    entries = [given] if given else os.environ.get("CLASSPATH", "").split(os.pathsep)
    for entry in entries:
        if os.path.isfile(entry) and (given or "corenlp" in os.path.basename(entry)):
            return entry
    where = f"--corenlp-jar {given} is no file" if given else "--ptb finds no stanford-corenlp-*.jar on CLASSPATH"
    raise UserError(f"{where}: give --corenlp-jar the jar of Stanford CoreNLP (the BART recipe has 3.7.0)")


def ptb_tokenize(texts: Sequence[str], jar: str) -> list[str]:
    """Tokens joined by blanks, text by text.

    Args:
        texts: one line each.

    Raises:
        UserError: Java is missing or fails, or the tokenizer gives another number of lines.
    """
    java = shutil.which("java")
    if java is None:
        raise UserError("--ptb runs Java, and there is no java on PATH: install a Java runtime, or leave out --ptb")
    command = [java, "-cp", jar, TOKENIZER, "-preserveLines"]
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    done = subprocess.run(command, input=lines, capture_output=True, encoding="utf-8")
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{TOKENIZER} of {jar} failed: {reason}")
    tokenized = done.stdout.split("\n")[:-1]
    if len(tokenized) != len(texts):
        raise UserError(f"{TOKENIZER} of {jar} made {len(tokenized)} lines of {len(texts)}")
    return tokenized
