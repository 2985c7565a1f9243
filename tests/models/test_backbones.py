"""GPT-2, LLaMA and T5 compute what transformers computes; skipping, dropping and decoding step by step change nothing
else."""

from __future__ import annotations

import copy
from argparse import Namespace
from typing import Any

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from support import task_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fairseq_switchdec.cost import Keep, flops
from fairseq_switchdec.criterions.objective import smoothed_loss
from fairseq_switchdec.decisions import Decisions
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models.decoder import CACHE
from fairseq_switchdec.models.options import fill_decisions
from fairseq_switchdec.policy import input_uniforms, random_decisions
from fairseq_switchdec.runtime.packing import bf16_products, reduce_range
from fairseq_switchdec.tasks import SwitchableSentencePredictionTask, SwitchableSquadTask

pytest.importorskip("transformers")
from backbones import MODELS, VARIANTS, Pair, make_pair

CAUSAL = ("gpt2", "llama-grouped-untied")
T5S = ("t5", "t5-1.1")
ONE_EACH = (*CAUSAL, *T5S)


@pytest.fixture(scope="module", params=ONE_EACH)
def pair(request: pytest.FixtureRequest) -> Pair:
    return make_pair(request.param)


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request: pytest.FixtureRequest) -> Pair:
    return make_pair(request.param)


@pytest.fixture(scope="module", params=T5S)
def t5(request: pytest.FixtureRequest) -> Pair:
    return make_pair(request.param)


def texts(seed: int, *lengths: int) -> list[list[int]]:
    """transformers' ids, none special."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(10, 50, (length,), generator=generator).tolist() for length in lengths]


def batch(pair: Pair, sources: list[list[int]], targets: list[list[int]]) -> dict[str, Tensor]:
    """Sources padded on the left, targets on the right, each with ``</s>``."""
    pad, eos = pair.dictionary.pad(), pair.dictionary.eos()

    def padded(rows: list[list[int]], left: bool) -> Tensor:
        width = max(map(len, rows))
        return torch.tensor([[pad] * (width - len(r)) + r if left else r + [pad] * (width - len(r)) for r in rows])

    return {
        "src_tokens": padded([[*pair.ids(source), eos] for source in sources], left=True),
        "prev_output_tokens": padded([[eos, *pair.ids(target)] for target in targets], left=False),
        "target": padded([[*pair.ids(target), eos] for target in targets], left=False),
    }


def log_probs(model: Any, inputs: dict[str, Tensor], decisions: Decisions | None = None) -> Tensor:
    """Of the targets, (B, T)."""
    with torch.no_grad():
        output = model(inputs["src_tokens"], None, inputs["prev_output_tokens"], decisions=decisions)
    scores = model.get_normalized_probs(output, log_probs=True)
    return scores.gather(2, inputs["target"].unsqueeze(2)).squeeze(2)


def draw(pair: Pair, count: int, seed: int, keep: float = 0.5) -> Decisions:
    space = pair.ours.encoder.space
    return random_decisions(space, input_uniforms(seed, 0, torch.arange(count), space.num_sublayers + 1), keep)


def dropping(pair: Pair, strategy: int) -> Decisions:
    """Of one input, which drops tokens and keeps all sublayers."""
    space = pair.ours.encoder.space
    return space.decisions(torch.ones(1, space.num_sublayers, dtype=torch.bool), torch.tensor([strategy]))


def expected(pair: Pair, source: list[int], target: list[int]) -> Tensor:
    """transformers' log-probabilities of a target and its ``</s>``."""
    eos = pair.theirs.config.eos_token_id
    written = [*target, eos]
    if pair.kind == "t5":
        logits = pair.theirs(torch.tensor([[*source, eos]]), decoder_input_ids=torch.tensor([[0, *target]])).logits[0]
    else:
        prompt = [*source, *pair.suffix]
        logits = pair.theirs(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(written)), written]


@pytest.mark.parametrize("variant", VARIANTS)
def test_log_probabilities_are_those_of_transformers(variant: str) -> None:
    pair = make_pair(variant)
    sources, targets = texts(1, 9, 21, 2), texts(2, 5, 7, 1)
    found = log_probs(pair.ours, batch(pair, sources, targets))
    for row, (source, target) in enumerate(zip(sources, targets)):
        reference = expected(pair, source, target)
        torch.testing.assert_close(found[row, : len(reference)], reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_mixed_decisions_equal_inputs_one_by_one(pair: Pair, seed: int) -> None:
    sources, targets = texts(seed, 9, 21, 2, 14, 14), texts(seed + 9, 5, 7, 1, 7, 3)
    decisions = draw(pair, 5, seed)
    together = log_probs(pair.ours, batch(pair, sources, targets), decisions)
    for row in range(5):
        alone = log_probs(
            pair.ours, batch(pair, sources[row : row + 1], targets[row : row + 1]), decisions.select([row])
        )
        torch.testing.assert_close(together[row, : alone.size(1)], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_steps_equal_the_whole_under_mixed_decisions(pair: Pair, seed: int, packed: bool) -> None:
    """Beam search for long enough that slots are given back."""
    model, inputs = pair.ours, batch(pair, texts(seed, 9, 21, 2), texts(3, 1, 1, 1))
    decisions = draw(pair, 3, seed, 0.6)
    try:
        model._is_generation_fast = packed
        model.pack("fp32")
        net_input = {"src_tokens": inputs["src_tokens"], "src_lengths": None, "decisions": decisions}
        generator = SequenceGenerator([model], pair.dictionary, beam_size=4, max_len_b=45, min_len=40)
        hypotheses = generator.generate([model], {"net_input": net_input})
        checked = 0
        for row, beams in enumerate(hypotheses):
            for hypothesis in beams:
                tokens = hypothesis["tokens"]
                whole = {
                    "src_tokens": inputs["src_tokens"][row : row + 1],
                    "prev_output_tokens": tokens.roll(1).unsqueeze(0),
                    "target": tokens.unsqueeze(0),
                }
                assert tokens[-1] == pair.dictionary.eos()
                again = log_probs(model, whole, decisions.select([row]))
                torch.testing.assert_close(hypothesis["positional_scores"], again[0], atol=3e-5, rtol=0)
                checked += 1
        assert checked == 12
    finally:
        model.unpack()
        model._is_generation_fast = False


@pytest.mark.parametrize("features_only", [False, True])
def test_what_steps_give_may_be_written_to(pair: Pair, features_only: bool) -> None:
    """Sampling divides logits in place by a temperature; tensors of inference mode would refuse."""
    inputs = batch(pair, texts(1, 9, 21), texts(2, 5, 7))
    with torch.no_grad():
        encoder_out = pair.ours.encoder(inputs["src_tokens"], decisions=draw(pair, 2, 1))
        state: dict[str, Any] = {}
        for length in range(1, 4):
            tokens = inputs["prev_output_tokens"][:, :length]
            given, _ = pair.ours.decoder(tokens, encoder_out, state, features_only=features_only)
            assert not given.is_inference()
    halved = given / 2
    torch.testing.assert_close(given.div_(2), halved, atol=0, rtol=0)


@pytest.mark.parametrize("finished", [False, True])
def test_gradients_may_be_wanted_after_steps_without(t5: Pair, finished: bool) -> None:
    """As training by a sampled text's score has it: the source is read once, decoded greedily, and then trained on.

    Where an input finishes, the others' layouts and decisions are made anew between two steps.
    """
    inputs, decisions = batch(t5, texts(1, 9, 21, 2), texts(2, 5, 7, 3)), draw(t5, 3, 4)
    assert not bool(decisions.cross_attention_keep.all() | decisions.cross_attention_keep.any().logical_not())
    left = torch.tensor([0, 2]) if finished else torch.arange(3)
    targets = inputs["prev_output_tokens"]

    def gradients(decode: bool) -> list[Tensor]:
        t5.ours.zero_grad()
        encoder_out = t5.ours.encoder(inputs["src_tokens"], decisions=decisions)
        state: dict[str, Any] = {}
        with torch.no_grad():
            for length in range(1, 3) if decode else ():
                t5.ours.decoder(targets[:, :length], encoder_out, state)
            t5.ours.decoder.reorder_incremental_state(state, left)
        encoder_out = t5.ours.encoder.reorder_encoder_out(encoder_out, left)
        with torch.no_grad():
            for length in range(3, 5) if decode else ():
                t5.ours.decoder(targets[left, :length], encoder_out, state)
        logits, _ = t5.ours.decoder(targets[left], encoder_out)
        logits.square().mean().backward()
        return [parameter.grad.clone() for parameter in t5.ours.parameters() if parameter.grad is not None]

    for found, wanted in zip(gradients(decode=True), gradients(decode=False)):
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)


def test_hidden_states_of_all_layers(pair: Pair) -> None:
    inputs = batch(pair, texts(1, 9, 21), texts(2, 5, 7))
    arguments = (inputs["src_tokens"], None, inputs["prev_output_tokens"])
    with torch.no_grad():
        features, extra = pair.ours(*arguments, features_only=True, return_all_hiddens=True)
        states = extra["inner_states"]
        norm = (pair.ours.decoder if pair.kind == "t5" else pair.ours.encoder).layer_norm
        torch.testing.assert_close(norm(states[-1]).transpose(0, 1), features, rtol=0, atol=0)
    space = pair.ours.encoder.space
    assert len(states) == (space.decoder_layers or space.encoder_layers) + 1
    assert all(not torch.equal(one, other) for one, other in zip(states, states[1:]))


def test_keep_none_is_the_identity(pair: Pair) -> None:
    """What is skipped is not there: its weights may be anything."""
    space = pair.ours.encoder.space
    nothing = space.decisions(torch.zeros(2, space.num_sublayers, dtype=torch.bool), torch.zeros(2, dtype=torch.long))
    inputs = batch(pair, texts(1, 9, 21), texts(2, 5, 7))
    before = log_probs(pair.ours, inputs, nothing)
    saved = {name: value.clone() for name, value in pair.ours.state_dict().items()}
    for name, parameter in pair.ours.named_parameters():
        if ".layers." in name and "encoder.layers.0." not in name:
            parameter.data.fill_(torch.nan)
    after = log_probs(pair.ours, inputs, nothing)
    pair.ours.load_state_dict(saved)
    assert torch.equal(before, after)


def test_cost_equals_the_counter(pair: Pair) -> None:
    sources, targets = texts(1, 20), texts(2, 7)
    inputs, model = batch(pair, sources, targets), pair.ours
    lengths = model.encoder.lengths(inputs["src_tokens"], torch.tensor([8]), 1, incremental=False)
    strategies = set()
    for seed in range(6):
        decisions = draw(pair, 1, seed) if seed else model.encoder.space.keep_all(1)
        strategies.add(int(decisions.token_strategy))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            log_probs(model, inputs, decisions)
        assert float(flops(model.geometry, Keep.of(decisions, lengths), lengths)) == pytest.approx(
            counter.get_total_flops(), rel=0.01
        )
    assert len(strategies) > 2


def test_cost_of_decoding_equals_the_counter(pair: Pair) -> None:
    inputs, model = batch(pair, texts(1, 20), texts(2, 1)), pair.ours
    lengths = model.encoder.lengths(inputs["src_tokens"], torch.tensor([7]), 3)
    for seed in range(3):
        decisions = draw(pair, 1, seed)
        generator = SequenceGenerator([model], pair.dictionary, beam_size=3, min_len=6, max_len_b=6, max_len_a=0)
        net_input = {"src_tokens": inputs["src_tokens"], "src_lengths": None, "decisions": decisions}
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            generator.generate([model], {"net_input": net_input})
        assert float(flops(model.geometry, Keep.of(decisions, lengths), lengths)) == pytest.approx(
            counter.get_total_flops(), rel=0.01
        )


def layers_of(pair: Pair, hidden: Tensor, positions: Tensor) -> Tensor:
    """Logits of transformers' layers after the first one, on states (T, D) of tokens that stand at ``positions``."""
    hidden = hidden.unsqueeze(0)
    mask = torch.full((1, 1, len(positions), len(positions)), -1e9).triu(1)
    if pair.kind == "gpt2":
        for block in pair.theirs.transformer.h[1:]:
            hidden = first(block(hidden, attention_mask=mask))
        return pair.theirs.lm_head(pair.theirs.transformer.ln_f(hidden))[0]
    angles = pair.theirs.model.rotary_emb(hidden, positions.unsqueeze(0))
    for layer in pair.theirs.model.layers[1:]:
        hidden = first(layer(hidden, attention_mask=mask, position_embeddings=angles))
    return pair.theirs.lm_head(pair.theirs.model.norm(hidden))[0]


def first(output: Any) -> Tensor:
    """The hidden states, which releases give alone or before others."""
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("strategy", [3, 6])
def test_dropped_tokens_leave_the_others_positions(causal: Pair, strategy: int) -> None:
    """Rotary or learned: transformers' later layers, run on the kept tokens' states and positions alone, agree."""
    model, (source, target) = causal.ours, texts(4, 20, 5)
    inputs, decisions = batch(causal, [source], [target]), dropping(causal, strategy)
    with torch.no_grad():
        kept = model.encoder(inputs["src_tokens"], None, decisions=decisions)["tokens"].positions
    read = len(source) + len(causal.suffix) - 1
    assert len(kept) == read - {3: 5, 6: 9}[strategy], "of 19 droppable tokens: neither the first one nor the suffix"
    written = [*target, causal.theirs.config.eos_token_id]
    sequence = torch.tensor([[*source, *causal.suffix, *target]])
    states = causal.theirs(sequence, output_hidden_states=True).hidden_states[1][0]
    positions = torch.cat([kept, torch.arange(read, sequence.size(1))])
    logits = layers_of(causal, states[positions], positions)[-len(written) :]
    expected = logits.log_softmax(-1)[range(len(written)), written]
    torch.testing.assert_close(log_probs(model, inputs, decisions)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strategy", [3, 6])
def test_dropped_tokens_leave_the_others_distances(t5: Pair, strategy: int) -> None:
    """transformers' later encoder layers, given the kept tokens' states and the distances between them, agree."""
    model, (source, target) = t5.ours, texts(4, 20, 5)
    inputs, decisions = batch(t5, [source], [target]), dropping(t5, strategy)
    stack, eos = t5.theirs.encoder, t5.theirs.config.eos_token_id
    with torch.no_grad():
        encoded = model.encoder(inputs["src_tokens"], None, decisions=decisions)
        kept = encoded["tokens"].positions
        hidden = stack(torch.tensor([[*source, eos]]), output_hidden_states=True).hidden_states[1][:, kept]
        bias = stack.block[0].layer[0].SelfAttention.compute_bias(len(source) + 1, len(source) + 1)
        for block in stack.block[1:]:
            hidden = first(block(hidden, position_bias=bias[..., kept, :][..., kept]))
        expected = stack.final_layer_norm(hidden)[0]
    assert len(kept) == 21 - {3: 6, 6: 10}[strategy]
    torch.testing.assert_close(encoded["encoder_out"][0], expected, atol=1e-5, rtol=1e-5)


def test_targets_padded_on_the_left_are_refused(causal: Pair) -> None:
    inputs = batch(causal, texts(1, 9), texts(2, 3))
    inputs["prev_output_tokens"][0, 0] = causal.dictionary.pad()
    with pytest.raises(UserError, match="leave out --left-pad-target"):
        log_probs(causal.ours, inputs)


def test_a_stack_of_one_layer_is_refused() -> None:
    with pytest.raises(UserError, match="--decoder-layers 1: the first layer feeds the policy"):
        make_pair("gpt2", decoder_layers=1)


def test_the_checkpoint_says_the_sizes_and_must_be_of_the_architecture(tmp_path: Any) -> None:
    pair = make_pair("llama3")
    torch.save({"args": pair.ours.args, "model": {}, "optimizer_history": []}, tmp_path / "model.pt")

    def built(arch: str) -> Any:
        args = Namespace(arch=arch, finetune_from_model=str(tmp_path / "model.pt"), max_target_positions=64)
        fill_decisions(args)
        return MODELS[arch.split("_")[1]].build_model(args, task_of(pair.dictionary))

    again = built("switchable_llama")
    shapes = {name: value.shape for name, value in pair.ours.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert torch.equal(again.encoder.layers[0].rotary.frequencies, pair.ours.encoder.layers[0].rotary.frequencies)
    assert again.encoder.prompts == pair.ours.encoder.prompts
    with pytest.raises(UserError, match="holds a model switchable_llama, not a switchable_gpt2: .* its --arch"):
        built("switchable_gpt2")


@pytest.mark.parametrize("arch", ["switchable_t5_tiny", "switchable_gpt2", "switchable_llama"])
@pytest.mark.parametrize("task", [SwitchableSentencePredictionTask, SwitchableSquadTask])
def test_heads_are_for_bart(arch: str, task: Any) -> None:
    unbuilt = task.__new__(task)
    unbuilt.cfg = Namespace(restore_file="checkpoint_last.pt")
    with pytest.raises(UserError, match=f"--task {task.head[0]} needs --arch switchable_bart"):
        unbuilt.build_model(Namespace(arch=arch))


def test_a_skipped_attention_keeps_no_keys(causal: Pair) -> None:
    model, inputs = causal.ours, batch(causal, texts(1, 9, 21, 4), texts(2, 1, 1, 1))
    space = model.encoder.space
    keep = torch.ones(3, space.num_sublayers, dtype=torch.bool)
    keep[1, 1] = keep[:, 2] = False  # attention of layer 1 for one input, of layer 2 for all
    decisions = space.decisions(keep, torch.tensor([0, 0, 6]))
    state: dict[str, Any] = {}
    with torch.no_grad():
        encoded = model.encoder(inputs["src_tokens"], None, decisions=decisions)
        encoded = model.encoder.reorder_encoder_out(encoded, torch.arange(3).repeat_interleave(2))
        previous = torch.full((6, 1), causal.dictionary.eos())
        model.decoder(previous, encoder_out=encoded, incremental_state=state)
    cache, attention = state[CACHE], model.encoder.layers[0].self_attn
    assert [None if layer.keys.buffer is None else len(layer.keys.buffer) for layer in cache.layers] == [3, 2, None]
    assert cache.layers[0].keys.buffer.size(1) == attention.heads // attention.group, "grouped heads are not repeated"
    assert all(keys is None for keys in encoded["prompt"].keys), "the prompt's keys are held once"
    assert cache.layers[0].slots.prompt_slots == 21 + 2 and cache.layers[0].slots.used == 21 + 2 + 2
    with pytest.raises(RuntimeError, match="run the encoder again"):
        model.decoder(previous, encoder_out=encoded, incremental_state={})


def test_a_skipped_attention_of_a_t5_keeps_no_keys(t5: Pair) -> None:
    """Neither of the target nor of the source, unless cross-attention decides for itself."""
    model, inputs = t5.ours, batch(t5, texts(1, 9, 21, 4), texts(2, 1, 1, 1))
    space, layers = model.encoder.space, model.encoder.space.decoder_layers
    keep = torch.ones(3, space.num_sublayers, dtype=torch.bool)
    last = space.num_layers - 1
    keep[1, last - 1] = keep[:, last] = False  # attention of the last but one for one input, of the last for all
    decisions = space.decisions(keep, torch.tensor([0, 0, 6]))
    state: dict[str, Any] = {}
    with torch.no_grad():
        encoded = model.encoder(inputs["src_tokens"], None, decisions=decisions)
        encoded = model.encoder.reorder_encoder_out(encoded, torch.arange(3).repeat_interleave(2))
        model.decoder(torch.full((6, 1), t5.dictionary.eos()), encoder_out=encoded, incremental_state=state)
    cached = state[CACHE].layers
    rows = [0 if layer.keys.buffer is None else len(layer.keys.buffer) for layer in cached]
    read = [0 if layer.source is None else sum(len(b.inputs) for b in layer.source.buckets) for layer in cached]
    assert rows == read == [3] * (layers - 2) + [2, 0]


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_fewer_bits(pair: Pair, precision: str) -> None:
    """Near float32's log-probabilities, and an input's do not depend on what else is in its batch."""
    if precision == "bf16" and not bf16_products():
        pytest.skip("this processor multiplies no bfloat16")
    sources, targets = texts(1, 9, 21, 2), texts(2, 5, 7, 1)
    decisions = draw(pair, 3, 1)
    inputs = batch(pair, sources, targets)
    exact = log_probs(pair.ours, inputs, decisions)
    model = copy.deepcopy(pair.ours)
    model._is_generation_fast = True
    model.pack(precision)
    found = log_probs(model, inputs, decisions)
    real = inputs["target"].ne(pair.dictionary.pad())
    difference = (found - exact)[real].abs()
    near = 0.2 if precision == "int8" and reduce_range() else 0.1  # without VNNI, of half as many levels
    assert 1e-4 < difference.max() < near * exact[real].std(), "rounded, and near"
    for row in range(3):
        alone = log_probs(model, batch(pair, sources[row : row + 1], targets[row : row + 1]), decisions.select([row]))
        tolerance = 1e-4 if precision == "int8" else 0.05  # a bfloat16 product's rounding depends on its size
        torch.testing.assert_close(found[row, : alone.size(1)], alone[0], atol=tolerance, rtol=0)


def test_prompts_are_cut_at_the_article(causal: Pair) -> None:
    prompts = causal.ours.encoder.prompts
    (source,) = texts(6, 90)
    made = prompts(batch(causal, [source], texts(1, 1))["src_tokens"])
    assert prompts.room == 128 - 64 - 3 and made.tokens.size(1) == 64
    assert made.tokens[0, -3:].tolist() == causal.ids(causal.suffix)
    assert made.article[0].sum() == prompts.room - 1, "never the first token"


@pytest.mark.parametrize("source", [[], [11], [11, 12]])
def test_short_prompts(source: list[int]) -> None:
    pair = make_pair("gpt2", suffix=())
    found = log_probs(pair.ours, batch(pair, [source, [11, 12, 13, 14]], texts(1, 3, 3)), draw(pair, 2, 1))
    assert torch.isfinite(found).all()


def test_a_suffix_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="--prompt-suffix: of the model's 128 positions.*has no room"):
        make_pair("gpt2", suffix=(7,) * 70)
    with pytest.raises(UserError, match="--prompt-suffix: 777 is not in the dictionary"):
        make_pair("gpt2", suffix=(777,))


def test_what_cannot_be_written_has_no_share_of_the_smoothing(pair: Pair) -> None:
    inputs, model = batch(pair, texts(1, 9, 5), texts(2, 5, 7)), pair.ours
    with torch.no_grad():
        output = model(inputs["src_tokens"], None, inputs["prev_output_tokens"])
    scores, absent = model.get_normalized_probs(output, log_probs=True), model.decoder.absent
    assert absent and scores[..., absent].eq(-torch.inf).all()
    loss, nll = smoothed_loss(scores, inputs["target"], 0.1, pair.dictionary.pad(), absent)
    real = inputs["target"].ne(pair.dictionary.pad())
    present = [column for column in range(scores.size(-1)) if column not in absent]
    by_hand = torch.nn.functional.cross_entropy(
        output[0][real][:, present],
        torch.tensor([present.index(t) for t in inputs["target"][real].tolist()]),
        label_smoothing=0.1 * len(present) / (len(present) - 1),
        reduction="sum",
    )
    torch.testing.assert_close(loss.sum(), by_hand)
    torch.testing.assert_close(nll.sum(), -log_probs(model, inputs)[real].sum())
    plain, _ = smoothed_loss(scores, inputs["target"], 0.0, pair.dictionary.pad(), absent)
    assert torch.equal(plain, nll), "nothing times infinity is not a number"


def test_recomputed_activations_change_no_gradient(pair: Pair) -> None:
    inputs, decisions = batch(pair, texts(1, 9, 21), texts(2, 5, 7)), draw(pair, 2, 3)
    model, gradients = pair.ours, []
    parts = [part for part in model.modules() if hasattr(part, "checkpoint_activations")]
    shares = [part for part in model.modules() if hasattr(part, "share")]
    for recompute in (False, True):
        for part in parts:
            part.checkpoint_activations = recompute
        for part in shares:
            part.share = not recompute
        model.train().zero_grad()
        output = model(inputs["src_tokens"], None, inputs["prev_output_tokens"], decisions=decisions)
        output[0][..., model.decoder.dictionary.eos()].sum().backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    model.eval().zero_grad()
    for kept, again in zip(*gradients):
        assert (kept is None) == (again is None) and (kept is None or torch.allclose(kept, again, atol=1e-5))
