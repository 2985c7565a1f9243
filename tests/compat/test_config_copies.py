"""Configs are put together with a fraction of the copies, and are the same."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
from fairseq import options
from fairseq.dataclass import utils
from omegaconf import DictConfig, OmegaConf
from support import DATA_FLAGS, SWITCHABLE_FLAGS

from fairseq_switchdec.compat import config_copies
from fairseq_switchdec.compat.config_copies import copies_without_parents

WORDS = ["data-bin", *DATA_FLAGS, *SWITCHABLE_FLAGS, "--path", "model.pt", "--beam", 3, "--seed", 7, "--lenpen", 2.0]


def test_the_config_is_the_same_with_fewer_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    args = options.parse_args_and_arch(options.get_generation_parser(), [str(word) for word in WORDS])
    calls = {"stock": 0, "ours": 0}
    made: dict[str, Any] = {}
    deepcopy = copy.deepcopy
    for name in calls:

        def counted(value: Any, memo: Any = None, name: str = name) -> Any:
            calls[name] += 1
            return deepcopy(value, memo)

        with monkeypatch.context() as patched:
            patched.setattr(copy, "deepcopy", counted)
            if name == "stock":
                patched.setattr(config_copies, "copies_without_parents", nullcontext)
            made[name] = utils.convert_namespace_to_omegaconf(args)
    assert calls["ours"] < calls["stock"] / 3
    containers = [OmegaConf.to_container(cfg, resolve=True) for cfg in made.values()]
    assert containers[0] == containers[1] and containers[0]["generation"]["beam"] == 3
    for cfg in made.values():
        assert cfg.task._get_parent() is cfg and cfg.task.seed == 7  # by its interpolation of common.seed


def test_only_while_fairseq_makes_a_config() -> None:
    tree = OmegaConf.create({"left": {"value": 1}, "right": {"value": "${left.value}"}})
    with copies_without_parents():
        copied = copy.deepcopy(tree.right)
        assert copied._get_parent() is tree and copied.value == 1
        whole = copy.deepcopy(tree)
    assert whole.right._get_parent() is whole and whole == tree
    assert copy.deepcopy(tree.right)._get_parent() is not tree
    assert "_keeping_parent" not in DictConfig.__deepcopy__.__qualname__
