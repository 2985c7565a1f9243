"""Source lookup with every backbone: what is written, and its scores, do not change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from fairseq import search
from fairseq.sequence_generator import SequenceGenerator
from support import build_stock, build_switchable, make_dictionary
from torch import Tensor

from fairseq_switchdec.decisions import Decisions
from fairseq_switchdec.generation.ngram_block import NGramBlock
from fairseq_switchdec.models.decoder import CACHE, LOOKAHEAD
from fairseq_switchdec.policy import input_uniforms, random_decisions
from fairseq_switchdec.runtime.lookup import Lookup

pytest.importorskip("transformers")
from backbones import make_pair

BACKBONES = ("bart", "bart-sinusoidal", "gpt2", "llama-grouped-untied", "llama3", "t5", "t5-1.1")


@pytest.fixture(scope="module", params=BACKBONES)
def model(request: pytest.FixtureRequest) -> Any:
    if not request.param.startswith("bart"):
        return make_pair(request.param).ours
    dictionary = make_dictionary()
    learned = request.param == "bart"
    changes = {} if learned else {"encoder_learned_pos": False, "decoder_learned_pos": False}
    return build_switchable(dictionary, build_stock(dictionary, **changes), **changes)


@pytest.fixture
def looking(model: Any) -> Any:
    yield model
    model.decoder.lookup = None


def sources(model: Any, *lengths: int) -> Tensor:
    """Padded on the left, ended by </s>; each says everything twice."""
    dictionary = model.encoder.dictionary
    generator = torch.Generator().manual_seed(2)
    rows = torch.full((len(lengths), max(lengths) + 1), dictionary.pad())
    for row, length in zip(rows, lengths):
        half = torch.randint(10, 50, ((length + 1) // 2,), generator=generator)
        row[-length - 1 :] = torch.cat([half.repeat(2)[:length], half.new_tensor([dictionary.eos()])])
    return rows


def generate(
    model: Any,
    lookup: Lookup | None,
    src_tokens: Tensor,
    decisions: Decisions,
    prefix: Tensor | None = None,
    **options: Any,
) -> list[Any]:
    """By fairseq's generator, one hypothesis an input."""
    model.decoder.lookup = lookup
    options = {"beam_size": 1, "max_len_b": 40, **options}
    generator = SequenceGenerator([model], model.encoder.dictionary, **options)
    if generator.repeat_ngram_blocker is not None:
        generator.repeat_ngram_blocker = NGramBlock(options["no_repeat_ngram_size"])
    torch.manual_seed(5)
    sample = {"net_input": {"src_tokens": src_tokens, "src_lengths": None, "decisions": decisions}}
    return generator.generate([model], sample, prefix_tokens=prefix)


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for ours, theirs in zip(found, expected):
        assert [beam["tokens"].tolist() for beam in ours] == [beam["tokens"].tolist() for beam in theirs]
        for one, other in zip(ours, theirs):
            torch.testing.assert_close(one["positional_scores"], other["positional_scores"], atol=3e-5, rtol=0)


def mixed(model: Any, count: int, seed: int = 3) -> Decisions:
    space = model.encoder.space
    return random_decisions(space, input_uniforms(seed, 0, torch.arange(count), space.num_sublayers + 1), 0.7)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {"min_len": 38},
    "blocked": {"no_repeat_ngram_size": 2, "min_len": 30},
    "penalized": {"unk_penalty": 3.0, "temperature": 0.7, "len_penalty": 2.0},
}


@pytest.mark.parametrize(
    ("said", "options", "packed"),
    [
        ("auto", "plain", True),
        ("auto", "blocked", False),
        ("3", "long", False),
        ("3", "blocked", True),
        ("31", "penalized", False),
        ("31", "long", True),
    ],
)
def test_greedy_texts_are_the_same(looking: Any, said: str, options: str, packed: bool) -> None:
    """Under mixed decisions; inputs end at different steps, and slots are given back on the way."""
    lookup = Lookup.parse(said)
    src_tokens, decisions = sources(looking, 9, 21, 2, 14), mixed(looking, 4)
    try:
        looking._is_generation_fast = packed
        looking.pack("fp32")
        expected = generate(looking, None, src_tokens, decisions, **OPTIONS[options])
        assert looking.decoder.runs is None
        assert_same(generate(looking, lookup, src_tokens, decisions, **OPTIONS[options]), expected)
    finally:
        looking.unpack()
        looking._is_generation_fast = False
    steps = [beams[0]["tokens"].numel() for beams in expected]
    assert all(0 < runs <= most for runs, most in zip(looking.decoder.runs, steps))


def test_a_source_of_another_dictionary() -> None:
    """Its words are none of the target's where they have higher numbers."""
    dictionary = make_dictionary()
    model = build_switchable(dictionary, build_stock(dictionary))
    src_tokens = sources(model, 9)
    encoded = model.encoder(src_tokens, decisions=model.encoder.space.keep_all(1))
    encoded["src_tokens"] = [torch.tensor([[700, 5, 700, 6, 2]])]
    model.decoder.lookup, state = Lookup(7, 0.0), {}
    with torch.no_grad():
        model.decoder(torch.tensor([[2]]), encoder_out=encoded, incremental_state=state)
    assert state[LOOKAHEAD].rows[0].text.tokens == [5, 6, 2, 2]


def test_fewer_runs_where_a_text_repeats(looking: Any) -> None:
    """A random model soon says the same again and again."""
    src_tokens = sources(looking, 9)
    decisions = looking.encoder.space.keep_all(1)
    (beams,) = generate(looking, Lookup(7, 0.0), src_tokens, decisions, min_len=40)
    assert beams[0]["tokens"].numel() == 41
    assert looking.decoder.runs[0] < 35


def test_sampled_texts_are_the_same(looking: Any) -> None:
    strategy = search.Sampling(looking.encoder.dictionary, sampling_topk=3)
    src_tokens, decisions = sources(looking, 9, 21), mixed(looking, 2)
    options = {"search_strategy": strategy, "min_len": 20}
    expected = generate(looking, None, src_tokens, decisions, **options)
    assert_same(generate(looking, Lookup(5, 0.0), src_tokens, decisions, **options), expected)


def test_forced_prefixes_are_followed(looking: Any) -> None:
    src_tokens, decisions = sources(looking, 9, 21), mixed(looking, 2)
    prefix = torch.tensor([[11, 12, 13, 14], [20, 21, 1, 1]])
    expected = generate(looking, None, src_tokens, decisions, prefix)
    assert_same(generate(looking, Lookup(5, 0.0), src_tokens, decisions, prefix), expected)
    assert expected[0][0]["tokens"][:4].tolist() == [11, 12, 13, 14]


def test_a_batch_equals_inputs_one_by_one(looking: Any) -> None:
    lengths = (9, 21, 2)
    decisions = mixed(looking, 3)
    together = generate(looking, Lookup(4, 0.0), sources(looking, *lengths), decisions, min_len=25)
    for place, row in enumerate(sources(looking, *lengths)):
        alone = row[row != looking.encoder.padding_idx].unsqueeze(0)
        assert_same(generate(looking, Lookup(), alone, decisions.select([place]), min_len=25), [together[place]])


def test_several_hypotheses_are_decoded_as_ever(looking: Any) -> None:
    src_tokens, decisions = sources(looking, 9, 21), mixed(looking, 2)
    expected = generate(looking, None, src_tokens, decisions, beam_size=3)
    assert_same(generate(looking, Lookup(), src_tokens, decisions, beam_size=3), expected)
    assert looking.decoder.runs is None


def test_models_of_an_ensemble_guess_each_for_itself(looking: Any) -> None:
    """What one of them finds likely the generator need not take."""
    other = copy.deepcopy(looking)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    src_tokens, decisions, found = sources(looking, 9, 21), mixed(looking, 2), []
    for lookup in (None, Lookup(5, 0.0)):
        looking.decoder.lookup = other.decoder.lookup = lookup
        generator = SequenceGenerator([looking, other], looking.encoder.dictionary, beam_size=1, max_len_b=30)
        sample = {"net_input": {"src_tokens": src_tokens, "src_lengths": None, "decisions": decisions}}
        found.append(generator.generate([looking, other], sample))
    assert_same(found[1], found[0])


def test_a_skipped_attention_keeps_no_keys_of_guesses(looking: Any) -> None:
    """And of the others the wrong ones are seen by nobody."""
    space, first = looking.encoder.space, getattr(looking.decoder, "first", 0)
    decisions = space.keep_all(2)
    decisions.attention_keep[0, first + 1] = False
    src_tokens = sources(looking, 9, 21)
    looking.decoder.lookup = Lookup(6, 0.0)
    state: dict[str, Any] = {}
    with torch.no_grad():
        encoded = looking.encoder(src_tokens, None, decisions=decisions)
        previous = torch.full((2, 1), looking.encoder.dictionary.eos())
        for _ in range(12):
            logits, _ = looking.decoder(previous, encoder_out=encoded, incremental_state=state)
            previous = torch.cat([previous, logits[:, -1:].argmax(-1)], dim=1)
    cache, lookahead = state[CACHE], state[LOOKAHEAD]
    assert len(cache.layers[1].keys.buffer) == 1 and len(cache.layers[0].keys.buffer) == 2
    own = cache.layers[0].slots.sees & (cache.layers[0].slots.positions >= 0)
    assert own.sum(1).tolist() == [12 + len(row.known) - 1 for row in lookahead.rows]
