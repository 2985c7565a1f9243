"""Installs fairseq_switchdec and, beside it, the .pth file that brings its compatibility fixes into stock fairseq."""

import re
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.develop import develop

from distutils.command.install_data import install_data  # isort: skip  (setuptools brings it since Python 3.12)

HERE = Path(__file__).resolve().parent


class InstallBesidePackages(install_data):
    """Installs data_files where the packages go: Python reads a .pth file there, and pip uninstall removes it."""

    def finalize_options(self):
        self.set_undefined_options("install", ("install_lib", "install_dir"), ("root", "root"), ("force", "force"))


class DistributionWithData(Distribution):
    """Makes an editable install run install_data too: setuptools asks for ``has_data``, which nothing else defines."""

    def has_data(self):
        return self.has_data_files()


class DevelopThroughPip(develop):
    """`setup.py develop`, and the old `pip install -e` that calls it, as a pip install that also handles data_files.

    setuptools >= 80 does the same of its own.
    """

    def run(self):
        options = ["--no-deps"] * bool(self.no_deps) + ["--user"] * bool(self.user)
        options += ["--prefix", self.prefix] if self.prefix else []
        subprocess.check_call(
            [sys.executable, "-m", "pip", "install", "--use-pep517", *options, "--editable", str(HERE)]
        )


setup(
    name="fairseq_switchdec",
    version=re.search(r'__version__ = "(.+)"', (HERE / "fairseq_switchdec/__init__.py").read_text()).group(1),
    description="Switchable Decision (ICML 2024): BART, GPT-2, T5 and LLaMA in fairseq, skipping sublayers and tokens",
    packages=find_packages(include=["fairseq_switchdec", "fairseq_switchdec.*"]),
    package_data={"fairseq_switchdec": ["compat/*.pth"]},
    data_files=[("", ["fairseq_switchdec/compat/fairseq_switchdec.pth"])],
    distclass=DistributionWithData,
    cmdclass={"install_data": InstallBesidePackages, "develop": DevelopThroughPip},
    python_requires=">=3.9",
    install_requires=[
        "fairseq==0.12.2",  # the last release; the compat fixes and the checkpoint format are for this one
        "torch>=2.0,<2.14",  # 2.0 brings scaled_dot_product_attention; 2.13 is the newest that was tested
        "sacrebleu",
        "rouge-score",
    ],
    extras_require={
        "quickstart": ["tokenizers", "matplotlib>=3.5"],  # trains the quickstart's byte-level BPE; its pictures
        "plot": ["matplotlib>=3.5"],
        # The benchmark's peers and its plot; transformers reads GGUF files with gguf and accelerate. None of them asks
        # for another torch or numpy than fairseq runs with. llama-cpp-python, which pip compiles, is left to the user.
        "benchmark": ["transformers>=4.40,<6", "ctranslate2>=4.4,<5", "gguf>=0.16", "accelerate", "matplotlib>=3.5"],
        # Models of Hugging Face's formats. safetensors 0.4 shows shapes without reading; tokenizers 0.20 reads merges
        # written as pairs, as newer files have them; gguf 0.16 gives a file's values as Python's (its lists of tokens).
        "hugging-face": ["safetensors>=0.4", "tokenizers>=0.20", "gguf>=0.16"],
        "ray": ["ray>=2.9"],  # predict --engine ray
        "serve": ["ray[serve]>=2.9", "fastapi", "uvicorn", "prometheus-client"],  # examples/serve; Ray brings them too
        "glue": ["scikit-learn", "scipy"],  # F1, Matthews', Pearson's and Spearman's correlation as GLUE computes them
        "test": [
            *("pytest", "pytest-xdist", "ruff", "mypy", "scikit-learn", "scipy"),
            *("fastapi", "httpx", "prometheus-client", "uvicorn"),  # the service's web part, without Ray
            # What imported models are compared with: one release of it, and what it reads GGUF files with.
            *("transformers==4.57.*", "accelerate", "safetensors>=0.4", "gguf>=0.16"),
        ],
    },
)
