"""The service without Ray: what clients may ask, batches by key, the command's options."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from examples.serve.batcher import Batcher
from examples.serve.body import Limits, Refusal, parse
from examples.serve.options import limits_of
from fairseq_switchdec.errors import UserError

LIMITS = Limits(texts=3, characters=20, beam=4, length=30)


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_each_text_gets_its_options() -> None:
    (one,), several = parse(body(text="a b"), LIMITS)
    assert (one.text, one.decoding, one.decisions, one.budget, several) == ("a b", {}, "greedy", None, False)
    found, several = parse(body(texts=["a", "b"], budget=[0.5, "auto"], beam=4, lenpen=2, max_len_a=0.5), LIMITS)
    assert several and [(one.text, one.budget) for one in found] == [("a", 0.5), ("b", "auto")]
    assert found[0].decoding == found[1].decoding == {"beam": 4, "lenpen": 2, "max_len_a": 0.5}
    assert [one.budget for one in parse(body(texts=["a", "b"], budget=1), LIMITS)[0]] == [1, 1]
    assert [one.explain for one in (found[0], parse(body(text="a", explain=True), LIMITS)[0][0])] == [False, True]
    forced = {"attention_keep": [True]}
    assert parse(body(text="a", decisions=forced), LIMITS)[0][0].decisions == forced


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "the body is not JSON: Expecting property name"),
        (b"\xff", "the body is not UTF-8: invalid start byte at byte 0"),
        (b"[" * 100_000, "the body is not JSON: "),
        (b'{"text": "a", "lenpen": NaN}', "the body is not JSON: NaN is no number"),
        (b'{"text": "a", "lenpen": 1e999}', "lenpen must be a number from -10 to 10"),
        (b'{"text": "a", "beam": ' + b"9" * 5000 + b"}", ""),
        (b"[]", "the body must be a JSON object"),
        (body(), "give either text, a string, or texts"),
        (body(text="a", texts=["b"]), "give either text, a string, or texts"),
        (body(text=["a"]), "text must be a string"),
        (body(texts="a"), "texts must be a list of at least one string"),
        (body(texts=[]), "texts must be a list of at least one string"),
        (body(texts=["a", None]), r"texts\[1\] must be a string"),
        (body(texts=["a"] * 4), "texts has 4 texts, and the limit is 3: send several requests"),
        (body(text="a" * 21), "text has 21 characters, and the limit is 20: cut it"),
        (body(text="a", beem=2), "unknown field 'beem': the fields are text, texts, budget, decisions, explain, "),
        (body(text="a", explain=1), "explain must be true or false"),
        (body(text="a", **{"\ud800" * 99: 1}), "unknown field "),
        (body(text="a", beam=5), "beam must be a whole number from 1 to 4"),
        (body(text="a", beam=2.0), "beam must be a whole number from 1 to 4"),
        (body(text="a", beam=True), "beam must be a whole number from 1 to 4"),
        (body(text="a", min_len=31), "min_len must be a whole number from 0 to 30"),
        (body(text="a", lenpen="2"), "lenpen must be a number from -10 to 10"),
        (body(text="a", budget=0), "budget must be a number above 0 and at most 1"),
        (body(text="a", budget=True), "budget must be a number above 0 and at most 1"),
        (body(text="a", budget=[None]), "budget must be a number above 0 and at most 1"),
        (body(texts=["a", "b"], budget=[0.5]), "budget has 1 entries for 2 texts: give one for each"),
        (body(text="a", decisions="random"), "decisions must be 'greedy' or 'keep-all', or an object"),
        (body(text="a", decisions=["greedy"]), "decisions must be 'greedy' or 'keep-all', or an object"),
    ],
)
def test_a_bad_body_is_refused_by_field(content: bytes, message: str) -> None:
    with pytest.raises(Refusal, match=message) as caught:
        parse(content, LIMITS)
    assert caught.value.status == 400
    assert len(str(caught.value).encode()) < 600, "what a client sent is not sent back whole"


class Model:
    """Runs batches of words, which share one by their first letter; remembers them, and waits to be let go."""

    def __init__(self, free: bool = False):
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        if free:
            self.go.set()

    def __call__(self, words: list[str]) -> list[str]:
        self.batches.append(words)
        assert self.go.wait(10)
        if "a-bad" in words:
            raise ValueError("bad")
        return [word.upper() for word in words]

    def batcher(self, size: int = 3, wait: float = 0.0) -> Batcher:
        return Batcher(self, lambda word: word[0], size, wait)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_what_arrives_while_the_model_runs_is_batched_by_key() -> None:
    model = Model()

    async def run() -> list[Any]:
        batcher = model.batcher()
        first = asyncio.create_task(batcher("a0"))
        await until(lambda: model.batches)
        others = [asyncio.create_task(batcher(word)) for word in ("b1", "a1", "b2", "a2", "a3", "a4", "gone")]
        await asyncio.sleep(0.01)
        others.pop().cancel()
        model.go.set()
        return await asyncio.gather(first, *others)

    found = asyncio.run(run())
    assert model.batches == [["a0"], ["b1", "b2"], ["a1", "a2", "a3"], ["a4"]]
    assert found == [("A0", 1), ("B1", 2), ("A1", 3), ("B2", 2), ("A2", 3), ("A3", 3), ("A4", 1)]


def test_an_idle_model_waits_for_others_unless_a_batch_is_full() -> None:
    model = Model(free=True)

    async def run() -> None:
        batcher = model.batcher(wait=30.0)
        await asyncio.gather(*map(batcher, ("a0", "a1", "b0", "a2")), return_exceptions=False)

    async def bounded() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run(), 0.5)  # b0 waits on

    asyncio.run(bounded())
    assert model.batches == [["a0", "a1", "a2"]]


def test_a_failure_reaches_its_batch_only() -> None:
    model = Model(free=True)

    async def run() -> list[Any]:
        batcher = model.batcher()
        found = await asyncio.gather(*map(batcher, ("a0", "a-bad", "b0")), return_exceptions=True)
        return [*found, await batcher("a1")]

    first, second, other, later = asyncio.run(run())
    assert isinstance(first, ValueError) and first is second
    assert other == ("B0", 1) and later == ("A1", 1)


def test_options(tmp_path: Path) -> None:
    from examples.serve.__main__ import parse_args

    (tmp_path / "model.pt").touch()
    words = ["--path", str(tmp_path / "model.pt")]
    args = parse_args([*words, "--limit-body", "10", "--max-batch-size", "7"])
    assert limits_of(args) == Limits(body=10) and args.batch_size == 7 and args.host == "127.0.0.1"
    for wrong, message in (
        (("--path", "nowhere.pt"), "--path nowhere.pt does not exist: name a checkpoint"),
        (("--replicas", "0"), "--replicas 0 must be 1 or more"),
        (("--max-batch-size", "0"), "--max-batch-size 0 must be 1 or more"),
        (("--limit-texts", "0"), "--limit-texts 0 must be 1 or more"),
        (("--limit-queue", "5"), "--limit-texts 64 is more than --limit-queue 5 has room for"),
        (("--batch-wait", "nan"), "--batch-wait nan must be from 0 to 3600 seconds"),
        (("--switch-budget", "2"), "--switch-budget '2' must be in"),
        (("--port", "70000"), "--port 70000 must be from 0 to 65535"),
        (("--tokenizer-json", "none.json"), "--tokenizer-json none.json does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            parse_args([*words, *wrong])
