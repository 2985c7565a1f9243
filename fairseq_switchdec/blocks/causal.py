"""The layer of a decoder-only model: it reads a prompt once, and then continues it for all hypotheses."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from ..decisions import Decisions
from ..runtime.cache import LayerCache, SourceBucket, SourceKeys
from ..runtime.ragged import Ragged
from ..runtime.skipping import run_rows
from .layers import LayerConfig, SwitchableLayer
from .positions import Angles, Rotary

#: Keys and values of the prompts of the inputs that run a layer's attention, (N, K x d) each; None where none does.
PromptKeys = Optional[tuple[Tensor, Tensor]]


class SwitchableCausalLayer(SwitchableLayer):
    """x -> causal self-attention -> feed-forward.

    Args:
        rotary: gives the angles of positions; None where positions are in the embeddings.
    """

    def __init__(self, config: LayerConfig, index: int, rotary: Rotary | None):
        super().__init__(config, index)
        self.rotary = rotary

    def forward(self, x: Tensor, tokens: Ragged, decisions: Decisions) -> tuple[Tensor, PromptKeys]:
        """Read prompts, the tokens of all inputs side by side, (N, D), and give the keys for those who continue them.

        An input that skips the attention has no keys.
        """
        attention = self.self_attn
        index, part = tokens.select(decisions.rows("attention", self.index))
        projected: PromptKeys = None

        def attend(x: Tensor) -> Tensor:
            nonlocal projected
            queries, *projected = attention.queries_keys_values(x, self.rotary and self.rotary.of(part))
            contexts = []
            for bucket in part.buckets:  # padding comes last, where no real token sees it
                keys, values = (attention.split_heads(bucket.gather(kept)) for kept in projected)
                contexts.append(attention.attend(bucket.gather(queries), keys, values, causal=True))
            return attention.out_proj(part.merge(contexts))

        x = run_rows(lambda x: self.connect(x, attend, self.self_attn_layer_norm), index, x)
        index, _ = tokens.select(decisions.rows("ffn", self.index))
        return run_rows(self.feed_forward, index, x), projected

    def proceed(
        self,
        x: Tensor,
        decisions: Decisions,
        angles: Angles | None,
        mask: Tensor | None,
        prompt: SourceKeys | None,
        cache: LayerCache | None,
    ) -> Tensor:
        """Continue prompts, (B, G, T, D): the G hypotheses of an input share its decisions and its prompt's keys.

        Args:
            angles: of the positions, (B, 1, T, 1, d) each.
            mask: with a cache, which slots a hypothesis sees, bool (B, 1, G, capacity).
            prompt: the prompts' keys of the inputs that run the attention, where there is no cache to hold them.
        """

        def attention(x: Tensor, cosines: Tensor | None, sines: Tensor | None, mask: Tensor | None) -> Tensor:
            turned = None if cosines is None or sines is None else (cosines, sines)
            if cache is None:
                return self.connect(x, lambda x: self.attend_whole(x, turned, prompt), self.self_attn_layer_norm)
            return self.connect(x, lambda x: self.attend_step(x, turned, mask, cache), self.self_attn_layer_norm)

        rows = decisions.rows("attention", self.index, x.device)
        x = run_rows(attention, rows, x, *(angles or (None, None)), mask)
        return run_rows(self.feed_forward, decisions.rows("ffn", self.index, x.device), x)

    def attend_step(self, x: Tensor, angles: Angles | None, mask: Tensor | None, cache: LayerCache) -> Tensor:
        """Self-attention of a decoding step: T is 1, and the prompts' keys are in the cache."""
        attention = self.self_attn
        assert mask is not None
        queries, keys, values = (part.squeeze(2) for part in attention.queries_keys_values(x, angles))
        keys, values = cache.keys.put(attention.split_heads(keys)), cache.values.put(attention.split_heads(values))
        context = attention.attend(queries, keys, values, mask[..., : keys.size(2)])
        return attention.out_proj(context).unsqueeze(2)

    def attend_whole(self, x: Tensor, angles: Angles | None, prompt: SourceKeys | None) -> Tensor:
        """Self-attention of whole continuations: each to its prompt and to what of it comes before."""
        attention = self.self_attn
        assert prompt is not None
        beams, length = x.shape[1:3]
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()

        def attend(bucket: SourceBucket, *parts: Tensor) -> Tensor:
            queries, keys, values = (part.flatten(0, 1) for part in parts)
            read = (kept.repeat_interleave(beams, 0) if beams > 1 else kept for kept in (bucket.keys, bucket.values))
            own = (attention.split_heads(part) for part in (keys, values))
            keys, values = (torch.cat(pair, dim=2) for pair in zip(read, own))
            seen = causal.new_ones(1, 1, 1, bucket.keys.size(2)) if bucket.mask is None else bucket.mask
            seen = seen.expand(-1, -1, length, -1).repeat_interleave(beams, 0)
            mask = torch.cat([seen, causal.expand(*seen.shape[:3], -1)], dim=3)
            return attention.attend(queries, keys, values, mask).unflatten(0, (-1, beams))

        return attention.out_proj(prompt.each(attend, *attention.queries_keys_values(x, angles)))
