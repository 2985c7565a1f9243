"""Keep-all equals stock BART; mixed decisions in a batch equal its inputs one by one; checkpoints load or fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from support import build_stock, build_switchable, make_dictionary

from fairseq_switchdec.decisions import Decisions
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.policy import input_uniforms, random_decisions
from fairseq_switchdec.runtime import ragged


def draw(model: Any, batch_size: int, seed: int, keep: float = 0.5) -> Decisions:
    space = model.encoder.space
    return random_decisions(space, input_uniforms(seed, 0, torch.arange(batch_size), space.num_sublayers + 1), keep)


def logits(model: Any, batch: dict[str, Any], **changes: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(batch["src_tokens"], batch["src_lengths"], batch["prev"], **changes)[0]


def hypotheses(model: Any, dictionary: Any, net_input: dict[str, Any], **options: Any) -> list[list[dict[str, Any]]]:
    generator = SequenceGenerator([model], dictionary, **{"beam_size": 4, "max_len_b": 20, **options})
    return generator.generate([model], {"net_input": net_input})


def single(batch: dict[str, Any], row: int) -> dict[str, Any]:
    """One input without its padding."""
    source = batch["src_tokens"][row]
    previous = batch["prev"][row]
    return {
        "src_tokens": source[source.ne(1)].unsqueeze(0),
        "src_lengths": batch["src_lengths"][row : row + 1],
        "prev": previous[previous.ne(1)].unsqueeze(0),
    }


def net_input(batch: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"src_tokens": batch["src_tokens"], "src_lengths": batch["src_lengths"], **changes}


def same_hypotheses(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return all(
        torch.equal(one["tokens"], other["tokens"]) and abs(one["score"] - other["score"]) < 1e-4
        for one, other in zip(first, second)
    )


class TestKeepAllIsStockBART:
    def test_logits(self, stock, switchable, batch):
        real = batch["prev"].ne(1)
        expected = logits(stock, batch)[real]
        assert expected.std() > 0.1
        torch.testing.assert_close(logits(switchable, batch)[real], expected, rtol=0, atol=1e-5)

    def test_hidden_states_of_all_layers(self, stock, switchable, batch):
        """As BARTHubInterface.extract_features asks for them; a layer that is skipped gives its input."""
        options = {"features_only": True, "return_all_hiddens": True}
        arguments = (batch["src_tokens"], batch["src_lengths"], batch["prev"])
        real = batch["prev"].ne(1).T
        with torch.no_grad():
            expected = stock(*arguments, **options)[1]["inner_states"]
            found = switchable(*arguments, **options)[1]["inner_states"]
            space = switchable.encoder.space
            keep = torch.zeros(5, space.num_sublayers, dtype=torch.bool)
            nothing = space.decisions(keep, torch.zeros(5, dtype=torch.long))
            skipped = switchable(*arguments, decisions=nothing, **options)[1]["inner_states"]
        assert len(found) == len(expected) == 3
        for one, other in zip(found, expected):
            torch.testing.assert_close(one[real], other[real], rtol=0, atol=1e-5)
        assert torch.equal(skipped[0], skipped[2]) and not torch.equal(found[0], found[2])

    def test_logits_with_left_padded_targets(self, stock, switchable, batch):
        previous = batch["prev"].clone()
        previous[1] = torch.cat([previous.new_full((4,), 1), previous[1, :5]])
        batch = {**batch, "prev": previous}
        real = previous.ne(1)
        torch.testing.assert_close(logits(switchable, batch)[real], logits(stock, batch)[real], rtol=0, atol=1e-5)

    def test_gradients(self, dictionary, batch):
        stock = build_stock(dictionary, dropout=0.0).train()
        ours = build_switchable(dictionary, stock, dropout=0.0).train()
        for model in (stock, ours):
            out = model(batch["src_tokens"], batch["src_lengths"], batch["prev"])[0]
            out[batch["prev"].ne(1)].log_softmax(-1)[:, 7].sum().backward()
        expected = {name: p.grad for name, p in stock.named_parameters() if p.grad is not None}
        for name, parameter in ours.named_parameters():
            if "policy" not in name:
                torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5, msg=name)

    @pytest.mark.parametrize("options", [{}, {"beam_size": 1}, {"min_len": 5, "len_penalty": 2.0}])
    def test_beam_search(self, switchable, dictionary, batch, options):
        stock = build_stock(dictionary)  # a generator leaves its beam size in a stock model
        expected = hypotheses(stock, dictionary, net_input(batch), **options)
        found = hypotheses(switchable, dictionary, net_input(batch), **options)
        assert all(same_hypotheses(*pair) for pair in zip(found, expected))

    def test_saved_and_reloaded(self, dictionary, stock, switchable, batch, tmp_path):
        torch.save(switchable.state_dict(), tmp_path / "model.pt")
        fresh = build_switchable(dictionary)
        fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True), strict=True)
        torch.testing.assert_close(logits(fresh, batch), logits(switchable, batch), rtol=0, atol=0)

    def test_checkpoint_without_duplicate_parameters(self, dictionary, stock, batch):
        """As the official files are: no copies of the encoder's weights, no repeated output projection."""
        own = build_switchable(dictionary).state_dict().keys() - {"decoder.output_projection.weight"}
        state = {name: value for name, value in stock.state_dict().items() if name in own}
        assert len(state) == len(stock.state_dict()) - 8 * 3 - 1
        fresh = build_switchable(dictionary)
        fresh.load_state_dict(state, strict=True)
        real = batch["prev"].ne(1)
        torch.testing.assert_close(logits(fresh, batch)[real], logits(stock, batch)[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"switch_split_attention": True}, {"switch_per_layer": True}])
@pytest.mark.parametrize("seed", range(3))
class TestMixedDecisions:
    def test_piece_by_piece_equals_all_at_once(self, dictionary, stock, batch, changes, seed, monkeypatch):
        """The encoder runs all layers on some inputs before it turns to the next, whoever decides."""
        model = build_switchable(dictionary, stock, **changes)
        for options in ({"decisions": draw(model, 5, seed)}, {}):
            found = []
            for tokens in (1, 24, 10_000):
                monkeypatch.setattr(ragged, "PIECE", tokens)
                with torch.no_grad():
                    found.append(model.encoder(batch["src_tokens"], batch["src_lengths"], **options))
            for out in found:
                assert out["decisions"].equal(found[0]["decisions"])
                torch.testing.assert_close(out["encoder_out"], found[0]["encoder_out"], rtol=0, atol=1e-5)

    def test_logits_equal_one_by_one(self, dictionary, stock, batch, changes, seed):
        model = build_switchable(dictionary, stock, **changes)
        decisions = draw(model, 5, seed)
        together = logits(model, batch, decisions=decisions)
        for row in range(5):
            alone = single(batch, row)
            out = logits(model, alone, decisions=decisions.select([row]))
            torch.testing.assert_close(out[0], together[row, : out.size(1)], rtol=1e-5, atol=1e-5)

    def test_hypotheses_equal_one_by_one(self, dictionary, stock, batch, changes, seed):
        model = build_switchable(dictionary, stock, **changes)
        decisions = draw(model, 5, seed)
        together = hypotheses(model, dictionary, net_input(batch, decisions=decisions))
        lengths = {beam["tokens"].numel() for beams in together for beam in beams}
        assert len(lengths) > 1 or seed != 0  # inputs leave the batch at different steps
        for row in range(5):
            alone = net_input(single(batch, row), decisions=decisions.select([row]))
            assert same_hypotheses(hypotheses(model, dictionary, alone)[0], together[row])


class TestSkipping:
    def test_keep_none_leaves_first_layer_and_embeddings(self, switchable, batch):
        """With everything skipped the encoder is its first layer, the decoder its embeddings."""
        space = switchable.encoder.space
        none = space.decisions(torch.zeros(5, space.num_sublayers, dtype=torch.bool), torch.zeros(5, dtype=torch.long))
        other = {**batch, "src_tokens": batch["src_tokens"].clone()}
        other["src_tokens"][:, -3] = 9
        torch.testing.assert_close(
            logits(switchable, batch, decisions=none), logits(switchable, other, decisions=none), rtol=0, atol=0
        )

    def test_skipped_sublayers_are_not_called(self, dictionary, stock, batch):
        model = build_switchable(dictionary, stock)
        called = []
        for name, module in model.named_modules():
            if name.endswith((".q_proj", ".fc1")):
                module.register_forward_hook(lambda m, i, o, name=name: called.append((name, i[0].size(0))))
        decisions = model.encoder.space.keep_all(5)
        decisions.attention_keep[:, 1] = False
        decisions.ffn_keep[:3, 4] = False
        logits(model, batch, decisions=decisions)
        calls = dict(called)
        assert "encoder.layers.1.self_attn.q_proj" not in calls
        assert calls["decoder.layers.1.fc1"] == 2 and calls["decoder.layers.0.fc1"] == 5

    def test_nothing_is_cached_for_skipped_attention(self, switchable, batch):
        decisions = switchable.encoder.space.keep_all(5)
        decisions.attention_keep[[0, 2], 3] = False
        decisions.cross_attention_keep[[0, 2], 0] = False
        with torch.no_grad():
            encoder_out = switchable.encoder(batch["src_tokens"], decisions=decisions)
            state: dict[str, Any] = {}
            switchable.decoder(batch["prev"][:, :1], encoder_out=encoder_out, incremental_state=state)
        first, second = state["switchable_decoder_cache"].layers
        for layer, inputs in ((first, 3), (second, 5)):
            assert layer.keys.buffer.size(0) == layer.values.buffer.size(0) == inputs
            assert sum(len(bucket.keys) for bucket in layer.source.buckets) == inputs

    def test_incremental_equals_full_decoding(self, switchable, batch):
        decisions = draw(switchable, 5, seed=11)
        full = logits(switchable, batch, decisions=decisions)
        with torch.no_grad():
            encoder_out = switchable.encoder(batch["src_tokens"], decisions=decisions)
            state: dict[str, Any] = {}
            steps = [
                switchable.decoder(batch["prev"][:, : t + 1], encoder_out=encoder_out, incremental_state=state)[0]
                for t in range(batch["prev"].size(1))
            ]
        real = batch["prev"].ne(1)
        torch.testing.assert_close(torch.cat(steps, 1)[real], full[real], rtol=1e-5, atol=1e-5)

    def test_dropout_does_not_ask_for_gradients(self, dictionary, stock, batch):
        """The greedy path of training runs without gradients, and under the same conditions as the sampled one."""
        model = build_switchable(dictionary, stock, dropout=0.0, attention_dropout=0.5).train()
        decisions, outputs = draw(model, 5, 1), []
        for enabled in (True, False):
            torch.manual_seed(3)
            with torch.set_grad_enabled(enabled):
                out = model(batch["src_tokens"], batch["src_lengths"], batch["prev"], decisions=decisions)[0]
            outputs.append(out.detach())
        torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-6)

    def test_activation_checkpointing_changes_nothing(self, dictionary, stock, batch):
        gradients = []
        for checkpointing in (False, True):
            model = build_switchable(dictionary, stock, dropout=0.0, checkpoint_activations=checkpointing).train()
            out = model(batch["src_tokens"], batch["src_lengths"], batch["prev"], decisions=draw(model, 5, 1))[0]
            out.sum().backward()
            gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, msg=name)


class TestRefusals:
    def test_other_geometry(self, dictionary, stock):
        model = build_switchable(dictionary, encoder_ffn_embed_dim=24)
        with pytest.raises(UserError, match=r"fc1.*20x12 there, 24x12 here.*--encoder-ffn-embed-dim"):
            model.load_state_dict(stock.state_dict(), strict=True)

    def test_fewer_layers(self, dictionary, stock):
        with pytest.raises(UserError, match="unknown here.*--decoder-layers"):
            build_switchable(dictionary, decoder_layers=1).load_state_dict(stock.state_dict(), strict=True)

    @pytest.mark.parametrize("rows", [-5, 3])
    def test_other_dictionary(self, stock, rows):
        model = build_switchable(make_dictionary(50 + rows))
        with pytest.raises(UserError, match="54 tokens.*dict.txt"):
            model.load_state_dict(stock.state_dict(), strict=True)

    def test_mask_row_is_cut(self, dictionary, stock, batch):
        """bart.large has one row more than its dictionary, for ``<mask>``."""
        state = {name: value.clone() for name, value in stock.state_dict().items()}
        for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"):
            state[name] = torch.cat([state[name], torch.randn(1, 12)])
        model = build_switchable(dictionary)
        model.load_state_dict(state, strict=True)
        real = batch["prev"].ne(1)
        torch.testing.assert_close(logits(model, batch)[real], logits(stock, batch)[real], rtol=0, atol=1e-5)

    def test_encoder_of_one_layer(self, dictionary):
        with pytest.raises(UserError, match="--encoder-layers 1"):
            build_switchable(dictionary, encoder_layers=1)

    @pytest.mark.parametrize("flag", ["encoder_normalize_before", "encoder_layerdrop", "adaptive_softmax_cutoff"])
    def test_unsupported_option(self, dictionary, flag):
        with pytest.raises(UserError, match=f"--{flag.replace('_', '-')}"):
            build_switchable(dictionary, **{flag: 0.5})


def test_half_precision_keeps_the_policy_in_float32(dictionary):
    model = build_switchable(dictionary).half()
    assert model.encoder.layers[0].fc1.weight.dtype == torch.float16
    assert {p.dtype for p in model.encoder.policy.parameters()} == {torch.float32}
    assert {b.dtype for b in model.learner_state.buffers()} == {torch.float32, torch.float64}
    assert not any(p.requires_grad for p in model.encoder.policy.parameters())
