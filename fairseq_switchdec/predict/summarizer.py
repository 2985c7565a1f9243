"""A loaded model for a program that runs for long, such as a service: texts with options in, what is written out.

Each text has its own budget or decisions; texts with the same options of beam search share batches, whoever sent them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Union

from torch import Tensor

from ..errors import UserError
from ..generation.decision_source import check_budgets, parse_budget
from ..generation.report import SwitchReport
from ..pictures.page.dropped import SourceRule, as_they_are
from ..pictures.page.view import Source, input_view
from .command import load, place
from .generation import DECODING
from .predictor import RowError, Unusable
from .text_rows import checked
from .worker import Worker

#: What an explained answer has of the page's view of its input, beside what its text skipped and cost.
EXPLAINED = ("source", "known", "dropped", "path")


@dataclass(frozen=True)
class TextRequest:
    """A text to write from.

    Attributes:
        text: what the model reads.
        decoding: options of `fairseq_switchdec.predict.generation.DECODING` that differ from the loaded ones.
        decisions: "greedy", "keep-all", or an object as a file of ``--switch-decisions`` holds it.
        budget: share of the keep-all cost, in (0, 1], or "auto"; None: the loaded one.
        explain: the answer says which tokens were dropped, see `Summary`.
    """

    text: str
    decoding: dict[str, Any] = field(default_factory=dict)
    decisions: Union[str, dict[str, Any]] = "greedy"
    budget: Union[float, str, None] = None
    explain: bool = False


@dataclass(frozen=True)
class Summary:
    """What the model wrote for a text.

    Attributes:
        text: the best hypothesis.
        score: its log-probability, normalized by length as ``lenpen`` says.
        ran: what the text skipped and cost, as ``per_input`` of a ``--switch-report`` has it, without the id.
        explained: where it was asked for, more of it for people: `EXPLAINED` of
            `fairseq_switchdec.pictures.page.view.input_view`.
    """

    text: str
    score: float
    ran: dict[str, Any]
    explained: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A request that this model cannot answer, and why."""

    reason: str


class Summarizer:
    """Answers requests; one call at a time.

    Args:
        task: `SwitchableTask`.
        model: on its device, in evaluation mode.
        args: options of ``predict`` for that task; ``batch_size`` and ``max_tokens`` bound a batch.
    """

    def __init__(self, task: Any, model: Any, args: Namespace):
        self.task, self.model = task, model
        self.args = Namespace(**{**vars(args), "switch_report": None})
        self.predictor = task.build_predictor(self.args, model)
        self.policy = model.encoder.policy

    @classmethod
    def load(cls, args: Namespace) -> Summarizer:
        """The checkpoint that the options name, where it runs.

        Raises:
            UserError: naming the flag.
        """
        task, model = load(args)
        return cls(task, place(model, args), args)

    def __call__(self, requests: Sequence[TextRequest]) -> list[Summary | Refused]:
        """An answer for each request, in their order.

        Raises:
            UserError: the model's scores are no numbers.
        """
        answers: list[Any] = [None] * len(requests)
        groups: dict[Hashable, list[tuple[int, Tensor]]] = {}
        for number, request in enumerate(requests):
            try:
                tokens = self.read(request)
            except RowError as error:
                answers[number] = Refused(str(error))
            except UserError as error:
                answers[number] = Refused(error.message)
            else:
                # fairseq counts max_len_a by the width of a batch: there, a text would be cut as its neighbours say.
                width = tokens.numel() if self.decoding(request)["max_len_a"] else 0
                groups.setdefault((width, self.key(request)), []).append((number, tokens))
        for group in groups.values():
            written = self.write([requests[number] for number, _ in group], [tokens for _, tokens in group])
            for (number, _), summary in zip(group, written):
                answers[number] = summary
        return answers

    def decoding(self, request: TextRequest) -> dict[str, Any]:
        """Its options of beam search."""
        return {name: request.decoding.get(name, getattr(self.args, name)) for name in DECODING}

    def key(self, request: TextRequest) -> Hashable:
        """Equal for requests that can share a batch; those of one call need not be equal."""
        return request.decisions == "greedy", tuple(self.decoding(request).values())

    def read(self, request: TextRequest) -> Tensor:
        """A request's tokens, int64 (S,), after its options have been checked.

        Raises:
            RowError, UserError: it cannot be answered.
        """
        self.budget(request)
        if isinstance(request.decisions, dict):
            space = self.policy.space
            try:
                space.from_json([request.decisions])
            except ValueError as error:
                reason = str(error).replace("entry 0", "decisions", 1)
                raise RowError(f"{reason} (this model has {space.in_words()})") from None
        row = checked(1, "0", request.text)
        if isinstance(row, Unusable):
            raise RowError(row.reason)
        (tokens,) = self.predictor.encode(row).inputs
        options = self.decoding(request)
        asked = int(options["max_len_a"] * tokens.numel() + options["max_len_b"])
        longest = min(asked, self.model.max_decoder_positions() - 1)
        if options["min_len"] > longest:
            raise RowError(
                f"min_len {options['min_len']} is more than the {longest} tokens that max_len_a, max_len_b and the "
                "model allow"
            )
        return tokens

    def budget(self, request: TextRequest) -> float | str | None:
        """What its policy is asked for; None where it cannot be asked.

        Raises:
            UserError: the policy was trained for other budgets.
        """
        if request.decisions != "greedy":
            if request.budget is not None:
                raise UserError("budget asks the policy, which decisions do not use: leave one of them out")
            return None
        dial, budget = self.policy.dial, request.budget
        if budget is None:
            budget = self.args.switch_budget
        if budget is None and dial is not None and dial.auto:
            budget = "auto"
        check_budgets(dial, [] if budget is None else [parse_budget(budget, "budget")], "budget")
        return budget

    def write(self, requests: Sequence[TextRequest], inputs: list[Tensor]) -> list[Summary]:
        """The summaries of requests whose `key` is the same.

        Args:
            inputs: their tokens, int64 (S,) each.
        """
        args = Namespace(**{**vars(self.args), **self.decoding(requests[0])})
        worker = Worker(self.task, self.model, self.predictor.searching(args), args)
        report = SwitchReport(None)
        with self.deciding(requests):
            written = worker.results(inputs, list(range(len(inputs))), 0, report)
        ran = {entry.pop("id"): entry for entry in report.inputs}
        summaries = []
        for number, (request, each) in enumerate(zip(requests, written)):
            explained = self.explained(request.text, ran[number]) if request.explain else {}
            summaries.append(Summary(each.text, each.score, ran[number], explained))
        return summaries

    def explained(self, text: str, ran: dict[str, Any]) -> dict[str, Any]:
        """A text in pieces, kept and dropped, and its path, in JSON's types: `EXPLAINED`."""
        bpe = self.predictor.bpe
        encode, decode = (as_they_are, as_they_are) if bpe is None else (bpe.encode, bpe.decode)
        rule = SourceRule.of({"source": self.predictor.reading})
        view = input_view(ran, Source(text, encode(text).split(), decode), rule=rule)
        return {name: view[name] for name in EXPLAINED}

    def deciding(self, requests: Sequence[TextRequest]) -> AbstractContextManager[None]:
        """While it lasts, the task decides for a batch as its requests say."""
        source, space = self.task.source, self.policy.space
        if requests[0].decisions != "greedy":
            everything = space.keep_all(1).to_json()[0]
            return source.forcing(
                [everything if request.decisions == "keep-all" else request.decisions for request in requests]
            )
        if self.policy.dial is None:
            return nullcontext()
        return source.asking([self.budget(request) for request in requests], len(requests))
