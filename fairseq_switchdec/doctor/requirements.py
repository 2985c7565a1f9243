"""What setup.py requires, and fairseq beside it, for installs that pip has not seen; tests hold the two together."""

from __future__ import annotations

import importlib.metadata
import re
from typing import NamedTuple

#: What pip >= 24.1 installs no more, for the metadata of omegaconf 2.0.6, which the others require.
REFUSED = {"omegaconf", "hydra-core", "fairseq"}


class Requirement(NamedTuple):
    """A package.

    Attributes:
        name: as pip knows it.
        versions: those that do, such as ``>=2.0,<2.14``; empty for all.
        parts: of it that are wanted too, such as ``[serve]``.
    """

    name: str
    versions: str
    parts: str = ""

    @property
    def module(self) -> str:
        """What Python imports."""
        return {"scikit-learn": "sklearn", "hydra-core": "hydra"}.get(self.name, self.name.replace("-", "_"))

    def admits(self, version: str) -> bool:
        """Whether a version is one of those."""
        found = release(version)
        tests = {"==": found.__eq__, ">=": found.__ge__, "<": found.__lt__}
        return all(tests[operator](release(bound)) for operator, bound in re.findall("(==|>=|<)([^,]+)", self.versions))

    def __str__(self) -> str:
        return self.name + self.parts + self.versions


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 13, 0) of 2.13.0+cpu."""
    numbers = re.match(r"[\d.]*\d", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def installed_version(name: str) -> str | None:
    """Of a package, as pip knows it; None for one that pip has not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def installing(*words: Requirement | str) -> str:
    """The command that installs packages here: an environment that uv made has no pip, a new pip refuses some.

    Args:
        words: packages, and options.
    """
    pip = installed_version("pip")
    command = " ".join(["pip install", *(f'"{word}"' if isinstance(word, Requirement) else word for word in words)])
    if pip is None:
        return f"uv {command}"
    refused = any(isinstance(word, Requirement) and word.name in REFUSED for word in words)
    return f'pip install "pip<24.1", then {command}' if refused and release(pip) >= (24, 1) else command


def read(*texts: str) -> tuple[Requirement, ...]:
    """Of ``torch>=2.0,<2.14``, ``ray[serve]`` and the like."""
    found = (re.fullmatch(r"([\w-]+)(\[.*\])?(.*)", text) for text in texts)
    return tuple(Requirement(match[1], match[3], match[2] or "") for match in found if match is not None)


#: What everything needs. hydra and omegaconf are fairseq's, and the compatibility fixes are for these releases.
TORCH, FAIRSEQ = read("torch>=2.0,<2.14", "fairseq==0.12.2")
NEEDED = (
    *read("numpy"),
    TORCH,
    *read("hydra-core>=1.0.7,<1.1", "omegaconf<2.1"),
    FAIRSEQ,
    *read("sacrebleu", "rouge-score", "requests"),
)

#: What only some commands need, by the name of setup.py's extra.
EXTRAS = {
    "hugging-face": read("safetensors>=0.4", "tokenizers>=0.20", "gguf>=0.16"),
    "plot": read("matplotlib>=3.5"),
    "glue": read("scikit-learn", "scipy"),
    "ray": read("ray>=2.9"),
    "serve": read("ray[serve]>=2.9", "fastapi", "uvicorn", "prometheus-client"),
    "parquet": read("pyarrow"),
}

#: What each of them is for.
PURPOSES = {
    "hugging-face": "import, encode, export --to hugging-face, --bpe tokenizer_json",
    "plot": "plot",
    "glue": "GLUE's measures",
    "ray": "predict --engine ray",
    "serve": "examples/serve",
    "parquet": "predict of Parquet files",
}
