"""Tokenizers that these tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizer_files import BUILDERS, write_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tokenizer.json of each kind."""
    return write_files(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(params=list(BUILDERS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param
