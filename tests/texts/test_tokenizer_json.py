"""``--bpe tokenizer_json`` in fairseq's commands and in the hub interface, with a model over decimal ids."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary, encoders
from fairseq.data.encoders.utils import get_whole_word_mask
from support import DATA_FLAGS, POLICY_FLAGS, REPO, SWITCHABLE_FLAGS, run_command, train_flags
from tokenizer_files import texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from fairseq_switchdec.compat.user_dir import register_tasks_and_models
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models import SwitchableBARTModel
from fairseq_switchdec.scoring.outputs import parse_generated
from fairseq_switchdec.texts.tokenizer import TextTokenizer

register_tasks_and_models()

MARK = "A summary."


def build(path: Path | None, **options: object):
    return encoders.build_bpe(Namespace(bpe="tokenizer_json", tokenizer_json=path and str(path), **options))


def test_registered_without_the_library():
    """Naming the user directory costs no import of the library."""
    program = "import sys; from argparse import Namespace; from fairseq.utils import import_user_module; "
    program += "import_user_module(Namespace(user_dir='fairseq_switchdec')); from fairseq.data import encoders; "
    program += "print('tokenizer_json' in encoders.BPE_REGISTRY, 'tokenizers' in sys.modules)"
    program = "from fairseq_switchdec.compat import install; install(); " + program
    result = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_encode_and_decode(files, kind):
    bpe, tokenizer = build(files[kind]), TextTokenizer(str(files[kind]))
    assert bpe.encode("Some text.") == tokenizer.encode("Some text.")
    assert bpe.decode(f"<pad> {bpe.encode('Some text.')} </s>") == "Some text."


def test_official_bpe(shared_data, tmp_path):
    """GPT-2's own files as a tokenizer.json: the ids of fairseq's ``--bpe gpt2``."""
    folder = shared_data / "tokenizer" / "gpt2_bpe"
    names = {"gpt2_encoder_json": str(folder / "encoder.json"), "gpt2_vocab_bpe": str(folder / "vocab.bpe")}
    tokenizer = Tokenizer(models.BPE.from_file(*names.values()))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours, theirs = build(tmp_path / "tokenizer.json"), encoders.build_bpe(Namespace(bpe="gpt2", **names))
    for text in [*texts(), "Hello world!", "an <|endoftext|> spelled out", "caf\u00e9 \U0001f642"]:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids) == text


def test_escaped(files):
    bpe = build(files["byte-level"], tokenizer_json_escape=True)
    line = r"Ann: hi\nBob: C:\\new"
    assert bpe.encode(line) == build(files["byte-level"]).encode("Ann: hi\nBob: C:\\new")
    assert bpe.decode(bpe.encode(line)) == line


def test_file_missing():
    with pytest.raises(UserError, match="--bpe tokenizer_json needs --tokenizer-json FILE"):
        build(None)


def test_beginnings_of_words(files, kind):
    bpe = build(files[kind])
    ids = bpe.encode("The encoders' tokens").split()
    begins = [bpe.is_beginning_of_word(word) for word in ids]
    assert begins[0] == (kind != "byte-level")  # GPT-2 puts no space before a text
    assert sum(begins[1:]) == 2
    dictionary = Dictionary()
    for word in ids:
        dictionary.add_symbol(word)
    args = Namespace(bpe="tokenizer_json", tokenizer_json=str(files[kind]))
    mask = get_whole_word_mask(args, dictionary).tolist()
    assert mask == [1, 1, 1, 1, *(int(bpe.is_beginning_of_word(word)) for word in dictionary.symbols[4:])]


@pytest.fixture(scope="module")
def run(files, tmp_path_factory) -> SimpleNamespace:
    """A small model trained on texts that this BPE encoded: its folder, binary data, log and references."""
    folder, tokenizer = tmp_path_factory.mktemp("run"), files["byte-level"]
    sources = [" ".join(text.split()[:20]) for text in texts() if len(text.split()) > 8][:48]
    targets = [f" {' '.join(source.split()[:2])}\\n{MARK}" for source in sources]
    for side, lines in (("source", sources), ("target", targets)):
        (folder / side).write_text("".join(f"{line}\n" for line in lines))
        words = ["--tokenizer-json", tokenizer, "--escape", folder / side, folder / f"all.{side}"]
        run_command("encode", *words)
    symbols = json.loads(tokenizer.read_text())["model"]["vocab"].values()
    (folder / "dict.txt").write_text("".join(f"{number} 1\n" for number in sorted(symbols) if number > 2))
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    splits = [word for split in ("train", "valid", "test") for word in (f"--{split}pref", folder / "all")]
    run_command(
        "preprocess", "--source-lang", "source", "--target-lang", "target", *splits, "--destdir", folder,
        "--srcdict", folder / "dict.txt", "--tgtdict", folder / "dict.txt",
    )  # fmt: skip
    log = run_command(
        "train", folder, *SWITCHABLE_FLAGS, "--arch", "switchable_bart_tiny", *POLICY_FLAGS, "--truncate-source",
        *train_flags(folder, 4, "--eval-rouge", "--eval-rouge-args", '{"beam": 1, "max_len_b": 9}'),
        "--eval-rouge-bpe", "tokenizer_json", "--eval-rouge-print-samples",
        "--eval-rouge-bpe-args", json.dumps({"tokenizer_json": str(tokenizer)}),
    ).stdout  # fmt: skip
    references = [target.replace("\\n", "\n") for target in targets]
    return SimpleNamespace(folder=folder, tokenizer=tokenizer, log=log, references=references, sources=sources)


def test_validation_rouge(run):
    assert re.search(r'"valid_rougeL": "\d', run.log)
    assert MARK in run.log  # the reference of a pair, as words
    assert "compares numbers" not in run.log


@pytest.mark.parametrize("escape", [False, True])
def test_generate(run, escape):
    bpe = ["--bpe", "tokenizer_json", "--tokenizer-json", run.tokenizer, *["--tokenizer-json-escape"] * escape]
    log = run_command(
        "generate", run.folder, *DATA_FLAGS, *SWITCHABLE_FLAGS, "--path", run.folder / "checkpoint_last.pt", "--cpu",
        "--truncate-source", "--beam", 2, "--max-len-b", 9, "--scoring", "rouge", *bpe,
    ).stdout  # fmt: skip
    assert re.search(r"ROUGE-1 \d+\.\d\d \[", log) and "compares numbers" not in log
    references = parse_generated(log.split("\n")).references
    for index, text in enumerate(run.references):
        assert references[index] == (text.replace("\n", "\\n") if escape else text.split("\n")[0])


def test_interactive(run, tmp_path):
    """Ids of the lines on standard input, newlines of the texts included."""
    (tmp_path / "lines").write_text("Ann: hi\\nBob: hello\nthe second </s>\n")
    log = run_command(
        "interactive", run.folder, *DATA_FLAGS, *SWITCHABLE_FLAGS, "--path", run.folder / "checkpoint_last.pt", "--cpu",
        "--input", tmp_path / "lines", "--beam", 2, "--max-len-b", 9, "--bpe", "tokenizer_json",
        "--tokenizer-json", run.tokenizer, "--tokenizer-json-escape",
    ).stdout  # fmt: skip
    tokenizer = TextTokenizer(str(run.tokenizer))
    found = re.findall(r"^S-\d+\t(.*)$", log, flags=re.MULTILINE)
    assert found == [tokenizer.encode("Ann: hi\nBob: hello"), tokenizer.encode("the second </s>")]
    decoded = dict(re.findall(r"^(?:H|D)(-\d+)\t\S+\t(.*)$", log, flags=re.MULTILINE))
    assert decoded.keys() == {"-0", "-1"}


def test_hub_interface_finds_the_file_beside_the_checkpoint(run):
    bart = SwitchableBARTModel.from_pretrained(
        str(run.folder), "checkpoint_last.pt", str(run.folder), bpe="tokenizer_json"
    ).eval()
    text = "Ann: <|im_end|>\nBob: hello"
    ids = bart.encode(text)
    assert ids.tolist() == bart.task.source_dictionary.encode_line(bart.bpe.encode(text)).tolist()  # as in training
    assert bart.task.source_dictionary.unk() not in ids
    assert bart.decode(ids) == text
    assert bart.decode(torch.tensor([0, 3, *ids.tolist()])) == f"<unk>{text}"
    (summary,) = bart.sample([text], beam=2, max_len_b=9)
    assert isinstance(summary, str)
    escaped = SwitchableBARTModel.from_pretrained(
        str(run.folder), "checkpoint_last.pt", str(run.folder), bpe="tokenizer_json", tokenizer_json_escape=True
    )
    assert escaped.encode(text.replace("\n", "\\n")).equal(ids)
