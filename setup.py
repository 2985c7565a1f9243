"""Installs fairseq_switchdec and, beside it, the .pth file that brings its compatibility fixes into stock fairseq."""

import re
import subprocess
import sys
from pathlib import Path

import setuptools
from setuptools import Distribution, find_packages, setup
from setuptools.command.develop import develop
from setuptools.command.sdist import sdist

from distutils.command.install_data import install_data  # isort: skip  (setuptools brings it since Python 3.12)

HERE = Path(__file__).resolve().parent
#: PEP 639's field for an SPDX expression, where setuptools knows it.
LICENSE = "license_expression" if int(setuptools.__version__.split(".")[0]) >= 77 else "license"


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


class SourceDistribution(sdist):
    """Takes the examples, the tests and their settings along: the scripts run from it as they do from a checkout."""

    def make_release_tree(self, base_dir, files):
        beside = [HERE / name for name in (".ci/run", ".gitignore", ".mypy.ini", ".pytest.ini", ".ruff.toml")]
        for folder in ("examples", "tests"):
            found = [path for path in (HERE / folder).rglob("*.*") if "output" not in path.relative_to(HERE).parts]
            kinds = (".css", ".html", ".js", ".json", ".md", ".png", ".py", ".sh", ".svg")
            beside += [path for path in found if path.suffix in kinds]
        super().make_release_tree(base_dir, sorted({*files, *(str(path.relative_to(HERE)) for path in beside)}))


setup(
    name="fairseq_switchdec",
    version=re.search(r'__version__ = "(.+)"', (HERE / "fairseq_switchdec/__init__.py").read_text()).group(1),
    description="Switchable Decision (ICML 2024): BART, GPT-2, T5 and LLaMA in fairseq, skipping sublayers and tokens",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="fairseq_switchdec contributors",
    **{LICENSE: "MIT"},
    license_files=["fairseq_switchdec/LICENSE"],
    keywords="fairseq, BART, GPT-2, T5, LLaMA, summarization, dynamic inference, layer skipping, policy gradient",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in ("3", "3.9", "3.10", "3.11", "3.12", "3.13")),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["fairseq_switchdec", "fairseq_switchdec.*"]),
    package_data={
        "fairseq_switchdec": ["compat/*.pth", "pictures/page/*.html", "pictures/page/*.css", "pictures/page/*.js"]
    },
    data_files=[("", ["fairseq_switchdec/compat/fairseq_switchdec.pth"])],
    distclass=DistributionWithData,
    cmdclass={"install_data": InstallBesidePackages, "develop": DevelopThroughPip, "sdist": SourceDistribution},
    entry_points={"console_scripts": ["fairseq_switchdec = fairseq_switchdec.__main__:main"]},
    python_requires=">=3.9",
    install_requires=[
        "fairseq==0.12.2",  # the last release; the compat fixes and the checkpoint format are for this one
        "torch>=2.0,<2.14",  # 2.0 brings scaled_dot_product_attention; 2.13 is the newest that was tested
        "sacrebleu",
        "rouge-score",
        "requests",  # fairseq downloads GPT-2's encoder.json with it (--bpe gpt2, the hub), and does not require it
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
        "parquet": ["pyarrow"],  # predict of Parquet files
        "glue": ["scikit-learn", "scipy"],  # F1, Matthews', Pearson's and Spearman's correlation as GLUE computes them
        "test": [
            *("pytest", "pytest-xdist", "ruff", "mypy", "scikit-learn", "scipy"),
            *("fastapi", "httpx", "prometheus-client", "uvicorn"),  # the service's web part, without Ray
            "pyarrow",
            # What imported models are compared with: one release of it, and what it reads GGUF files with.
            *("transformers==4.57.*", "accelerate", "safetensors>=0.4", "gguf>=0.16"),
        ],
    },
)
