"""The n-gram blocker equals fairseq's Python loop, alone and inside fairseq's sequence generator."""

from __future__ import annotations

import math

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqDecoder, FairseqEncoder, FairseqEncoderDecoderModel
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.sequence_generator import SequenceGenerator

from fairseq_switchdec.generation.ngram_block import NGramBlock

VOCABULARY = 7  # small, so that n-grams repeat often


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("spare", [0, 5])  # columns of the buffer that are not filled yet
@pytest.mark.parametrize("symbols", [2, 5])
def test_equals_fairseq_at_every_step(size: int, spare: int, symbols: int) -> None:
    torch.manual_seed(size)
    bsz, beam_size, blocked = 3, 4, 0
    for step in range(12):
        tokens = torch.ones(bsz * beam_size, step + 1 + spare, dtype=torch.long)
        tokens[:, : step + 1] = torch.randint(2, 2 + symbols, (bsz * beam_size, step + 1))
        lprobs = torch.randn(bsz * beam_size, VOCABULARY).log_softmax(-1)
        expected = NGramRepeatBlock(size, use_extension=False)(
            tokens[:, : step + 1], lprobs.clone(), bsz, beam_size, step
        )
        torch.testing.assert_close(NGramBlock(size)(tokens, lprobs, bsz, beam_size, step), expected, rtol=0, atol=0)
        blocked += int((expected == -math.inf).sum())
    if symbols == 2:  # with five, six equal ones in a row may not come up
        assert (blocked == 0) == (size == 1)


def test_works_in_place_and_keeps_dtype() -> None:
    tokens = torch.tensor([[2, 4, 5, 4, 1], [2, 4, 5, 6, 1]])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        lprobs = torch.zeros(2, VOCABULARY, dtype=dtype)
        result = NGramBlock(2)(tokens, lprobs, 1, 2, 3)
        assert result is lprobs and result.dtype == dtype
        assert result.isinf().nonzero().tolist() == [[0, 5]]  # "4 5" would come twice in the first row


def test_a_token_that_ends_several_ngrams_is_blocked_if_one_matches() -> None:
    tokens = torch.tensor([[4, 5, 6, 5, 4, 5, 3, 5, 4]])  # "4 5" and "6 5" and "3 5" end in 5, only the first matches
    assert NGramBlock(2)(tokens, torch.zeros(1, VOCABULARY), 1, 1, 8).isinf().nonzero().tolist() == [[0, 5]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_does_not_wait_for_the_device() -> None:
    tokens = torch.randint(2, VOCABULARY, (6, 20), device="cuda")
    lprobs = torch.randn(6, VOCABULARY, device="cuda")
    expected = NGramBlock(3)(tokens.cpu(), lprobs.cpu(), 2, 3, 15)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = NGramBlock(3)(tokens, lprobs, 2, 3, 15)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(result.cpu(), expected)


def test_wrong_number_of_rows_and_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 6 rows"):
        NGramBlock(2)(torch.zeros(5, 3, dtype=torch.long), torch.zeros(6, 4), 2, 3, 2)
    with pytest.raises(ValueError, match="--no-repeat-ngram-size 0"):
        NGramBlock(0)


class _Prefix(NGramRepeatBlock):
    """fairseq's Python loop on the prefix generated so far, as it is meant (fairseq issue 5206)."""

    def forward(self, tokens, lprobs, bsz: int, beam_size: int, step: int):
        return super().forward(tokens[:, : step + 1], lprobs, bsz, beam_size, step)


class _Encoder(FairseqEncoder):
    def forward(self, src_tokens, src_lengths=None, **_):
        return {"encoder_out": [src_tokens]}

    def reorder_encoder_out(self, encoder_out, new_order):
        return {"encoder_out": [encoder_out["encoder_out"][0].index_select(0, new_order)]}


class _Bigram(FairseqDecoder):
    """Next-token scores from a fixed random table of (source's first token, last token): it loves to repeat itself."""

    def __init__(self, dictionary: Dictionary):
        super().__init__(dictionary)
        self.table = torch.randn(len(dictionary), len(dictionary), len(dictionary)) * 3

    def forward(self, prev_output_tokens, encoder_out=None, incremental_state=None, **_):
        source = encoder_out["encoder_out"][0][:, :1]
        return self.table[source, prev_output_tokens], {"attn": [None]}

    def max_positions(self) -> int:
        return 64


@pytest.mark.parametrize("size", [2, 3])
def test_same_hypotheses_inside_fairseqs_generator(size: int) -> None:
    torch.manual_seed(3)
    dictionary = Dictionary()
    for symbol in "abcdef":
        dictionary.add_symbol(symbol)
    model = FairseqEncoderDecoderModel(_Encoder(dictionary), _Bigram(dictionary)).eval()
    source = torch.randint(dictionary.nspecial, len(dictionary), (5, 4))
    sample = {"net_input": {"src_tokens": source, "src_lengths": torch.full((5,), 4)}}

    def hypotheses(blocker: torch.nn.Module | None) -> list[list[list[int]]]:
        generator = SequenceGenerator([model], dictionary, beam_size=3, max_len_b=20, min_len=12)
        generator.repeat_ngram_blocker = blocker
        return [
            [hypothesis["tokens"].tolist() for hypothesis in beams] for beams in generator.generate([model], sample)
        ]

    ours = hypotheses(NGramBlock(size))
    assert ours == hypotheses(_Prefix(size, use_extension=False)) != hypotheses(None)
    for tokens in (tokens for beams in ours for tokens in beams):
        ngrams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
        assert len(ngrams) == len(set(ngrams))
