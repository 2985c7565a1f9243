"""What all switchable models share, whatever their backbone: the policy, packing, checkpoints, the hub."""

from __future__ import annotations

import logging
import os
from typing import Any, ClassVar, Optional

import torch
from fairseq import checkpoint_utils
from torch import Tensor

from ..compat.user_dir import register_tasks_and_models
from ..cost import Geometry
from ..decisions import Decisions
from ..errors import UserError, raised_to_caller
from ..policy import Chooser, SwitchPolicy
from ..rl import LearnerState
from ..runtime.loading import CAN_ASSIGN, take
from ..runtime.packing import PackableModel
from .hub import SwitchableGeneratorHub, locate
from .openings import Openings

logger = logging.getLogger(__name__)

#: Parameters that a checkpoint of another program has not.
OURS = ("encoder.policy.", "learner_state.", "openings.")


class SwitchableModel(PackableModel):
    """Comes before a fairseq encoder-decoder model among the bases of a class.

    Attributes:
        geometry: what the cost of a path depends on.
        size_flags: the options that a checkpoint's tensors must agree with.
        hub_interface: what `from_pretrained` gives.
    """

    #: Built for a checkpoint that is not trained further, which is to be loaded next.
    takes_tensors: bool = False
    geometry: Geometry
    encoder: Any
    decoder: Any
    size_flags: ClassVar[str]
    hub_interface: ClassVar[Any] = SwitchableGeneratorHub

    def set_up_policy(self) -> None:
        """At the end of a model's initialization."""
        self.encoder.policy.reset_parameters()  # after fairseq's initialization of all linear layers
        self.learner_state = LearnerState(self.encoder.policy)
        self.openings = Openings()

    @property
    def policy(self) -> SwitchPolicy:
        """The policy network."""
        policy: SwitchPolicy = self.encoder.policy
        return policy

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        features_only: bool = False,
        token_embeddings: Tensor | None = None,
        decisions: Optional[Decisions | Chooser] = None,
        return_all_hiddens: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits (B, T, V) under each input's decisions, and a dict with ``decisions`` and the policy's ``features``.

        Args:
            decisions: see `SwitchableEncoder.forward`; None = the policy's greedy path.
            return_all_hiddens: see `OutputDecoder.forward`.
        """
        if torch.is_grad_enabled() and self.packed is not None:  # packed products have no gradients
            self.unpack()
        encoder_out = self.encoder(src_tokens, src_lengths, token_embeddings=token_embeddings, decisions=decisions)
        output: tuple[Tensor, dict[str, Any]] = self.decoder(
            prev_output_tokens,
            encoder_out=encoder_out,
            features_only=features_only,
            return_all_hiddens=return_all_hiddens,
        )
        return output

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str,
        checkpoint_file: str = "model.pt",
        data_name_or_path: str = ".",
        bpe: Optional[str] = "tokenizer_json",
        **overrides: Any,
    ) -> Any:
        """fairseq's hub interface over a checkpoint; of a plain model, switchable, with a policy that keeps everything.

        Args:
            model_name_or_path: folder of the checkpoint, or fairseq's name for a released model.
            data_name_or_path: folder of the dictionaries; one that begins with "." is taken from the checkpoint's.
            overrides: options to change, such as ``switch_decisions``.

        Raises:
            CallError: there is no such folder, the checkpoint cannot be used, or the files of the BPE are missing.
        """
        register_tasks_and_models()  # a checkpoint names its task
        with raised_to_caller():
            folder, overrides = locate(model_name_or_path, data_name_or_path, overrides, cls.hub_models() or {})
            overrides.update(bpe=bpe)
            file = os.path.join(folder, checkpoint_file)
            # fairseq frees the state, as large as the model, once it is loaded: no name here may hold it.
            load = checkpoint_utils.load_model_ensemble_and_task
            models, cfg, task = load([file], state=cls.read_checkpoint(file, overrides))
            try:
                return cls.hub_interface(cfg, task, models[0])
            except OSError as error:  # a file that is not there, or a download that fails
                raise UserError(
                    f"the files of bpe={bpe!r} are missing ({error}): put them beside the checkpoint, name them as its "
                    "options (gpt2_encoder_json=FILE, gpt2_vocab_bpe=FILE), or give bpe=None for texts that are words "
                    "of the dictionary"
                ) from error

    @classmethod
    def read_checkpoint(cls, path: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint as fairseq loads it, its options overridden.

        Raises:
            UserError: the file cannot be read.
        """
        state: dict[str, Any] = checkpoint_utils.load_checkpoint_to_cpu(path, overrides)
        return state

    @classmethod
    def hub_models(cls) -> dict[str, str]:
        """fairseq's released models, by name."""
        return {}

    def load_state_dict(
        self, state_dict: dict[str, Tensor], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """fairseq's hook. A model to be run takes the checkpoint's tensors themselves, not a copy of all."""
        if not (self.takes_tensors and CAN_ASSIGN):
            return super().load_state_dict(state_dict, strict, model_cfg, args)  # type: ignore[call-arg]
        self.upgrade_state_dict(state_dict)  # type: ignore[operator]
        loaded = take(self, state_dict, strict)  # type: ignore[arg-type]
        self.takes_tensors = False  # what is loaded later is somebody's own
        self.decoder.tie_output()
        empty = [name for name, value in self.state_dict().items() if value.is_meta]
        assert not empty, f"neither the checkpoint nor the model's initialization has given {empty} numbers"
        return loaded

    def set_beam_size(self, beam: int) -> None:
        """Nothing to prepare: the decoder sees the hypotheses of an input from the shapes."""

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Make a checkpoint's state fit: a new policy, if it has none.

        Raises:
            UserError: the checkpoint's geometry or dictionary differs.
        """
        own = self.state_dict()
        if not any(key.startswith("encoder.policy.") for key in state_dict):
            logger.info("the checkpoint has no policy: a new one starts by keeping everything")
        rescale_moments(state_dict)
        for key, value in own.items():
            if key.startswith(OURS) or key.endswith("coder.version"):
                state_dict.setdefault(key, value)
        learned = [key for key in state_dict if key.startswith("learner_state.")]
        for key in learned:
            if key not in own:  # an average that an older version kept
                del state_dict[key]
        if any(state_dict[key].shape != own[key].shape for key in learned if key in own):
            logger.info("the checkpoint's policy was not trained for a range of budgets: it starts to learn anew")
            state_dict.update((key, value) for key, value in own.items() if key.startswith("learner_state."))
        super().upgrade_state_dict_named(state_dict, name)  # type: ignore[misc]
        self.check_fits(state_dict)

    def check_fits(self, state_dict: dict[str, Tensor]) -> None:
        """Refuse a checkpoint whose tensors are not this model's.

        Raises:
            UserError: naming the difference and what to do about it.
        """
        own, embedding = self.state_dict(), "encoder.embed_tokens.weight"
        if embedding in state_dict and state_dict[embedding].size(0) != own[embedding].size(0):
            raise UserError(
                f"the checkpoint embeds {state_dict[embedding].size(0)} tokens, the data's dictionary has "
                f"{len(self.encoder.dictionary)}: binarize the data with the checkpoint's own dict.txt "
                "(fairseq-preprocess --srcdict dict.txt --tgtdict dict.txt)"
            )
        budgets = "encoder.policy.budgets"
        if budgets in own and not torch.allclose(state_dict[budgets].to(own[budgets]), own[budgets]):
            low, high, auto = state_dict[budgets].tolist()
            raise UserError(
                f"the checkpoint's policy was trained with --policy-flops-budget {low:g}:{high:g} and --policy-rule "
                f"{'quality' if auto else 'budget'}: give the same"
            )
        missing = sorted(own.keys() - state_dict.keys())
        unknown = sorted(state_dict.keys() - own.keys())
        differing = sorted(key for key in own.keys() & state_dict.keys() if own[key].shape != state_dict[key].shape)
        if not (missing or unknown or differing):
            return
        details = [f"{key} is {shape(state_dict[key])} there, {shape(own[key])} here" for key in differing]
        details += [f"{key} is missing there" for key in missing] + [f"{key} is unknown here" for key in unknown]
        more = f", and {len(details) - 3} more" if len(details) > 3 else ""
        raise UserError(
            f"the checkpoint's geometry differs from the model's: {'; '.join(details[:3])}{more}. Give the "
            f"checkpoint's --arch and its {self.size_flags}, --switch-policy-dim, --switch-split-attention, "
            "--switch-per-layer and the range of --policy-flops-budget"
        )


def rescale_moments(state_dict: dict[str, Tensor]) -> None:
    """An older version gave the policy's Adam the sum of both weighted gradients, which now gets their mean."""
    first, second, weights = (f"learner_state.{name}" for name in ("exp_avg", "exp_avg_sq", "weights"))
    if not {first, second, weights} <= state_dict.keys() or "learner_state.mean_gradients" in state_dict:
        return
    total = state_dict[weights].sum().clamp(min=1e-8)
    state_dict[first], state_dict[second] = state_dict[first] / total, state_dict[second] / total**2


def shape(tensor: Tensor) -> str:
    """A tensor's shape, readable."""
    return "x".join(map(str, tensor.shape)) or "a scalar"
