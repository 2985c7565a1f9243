"""The quickstart's own parts: corpus, BPE, command lines and report. That the whole runs is for a person to see."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from generated_files import write_generated

from examples.common import comparison
from examples.common.files import SPLITS, read_lines, write_lines
from examples.common.stages import Stages
from examples.quickstart import __main__ as quickstart
from examples.quickstart import build_corpus, clean_text, commands, dialogsum, report, train_bpe
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.texts.tokenizer import TextTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
NOUNS = ["apple", "river", "window", "garden", "silver", "copper", "winter", "candle", "bridge", "forest", "engine"]


def sentence(number: int, words: int) -> str:
    """Distinct words for every number."""
    return " ".join(np.random.RandomState(number).choice(NOUNS, words))


@pytest.fixture
def package(tmp_path):
    """A package tree with 200 documented functions, a duplicate, a test folder, and a file that does not parse."""
    folder = tmp_path / "package"
    (folder / "tests").mkdir(parents=True)
    source = "def f():\n    '''Return the {0}.\n\n    {1}.\n\n    >>> f()\n    42\n    '''\n\n"
    functions = [source.format(sentence(i, 5), sentence(1000 + i, 40)) for i in range(200)]
    (folder / "a.py").write_text("".join(functions[:100]), encoding="utf-8")
    (folder / "b.py").write_text("".join(functions[100:] + functions[:1]), encoding="utf-8")
    (folder / "broken.py").write_text("def f(:\n", encoding="utf-8")
    (folder / "tests" / "c.py").write_text(source.format("unseen summary text", sentence(5000, 40)), encoding="utf-8")
    return folder


def test_corpus_splits_share_no_text(package, tmp_path):
    counts = build_corpus.build(tmp_path / "corpus", {"package": package})
    assert counts["package"] == 200 == sum(counts[split] for split in SPLITS)
    for side in ("source", "target"):
        lines = [set(read_lines(tmp_path / "corpus" / f"{split}.{side}")) for split in SPLITS]
        assert [len(part) for part in lines] == [counts[split] for split in SPLITS]
        assert all(lines) and not (lines[0] & lines[1] or lines[0] & lines[2] or lines[1] & lines[2])
    assert "unseen summary text" not in "".join(read_lines(tmp_path / "corpus" / "train.target"))


def test_corpus_is_deterministic(package, tmp_path):
    for name in ("one", "two"):
        build_corpus.build(tmp_path / name, {"package": package})
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_documenting_calls_and_nested_definitions_are_read(tmp_path):
    path = tmp_path / "m.py"
    path.write_text(
        "if True:\n    class A:\n        def f(self):\n            'inner'\n"
        "add_docstr(torch.add, r'''outer {}'''.format('x'))\nm.add_newdoc('module', 'name', 'longer text')\n",
        encoding="utf-8",
    )
    assert set(build_corpus.docstrings(path)) >= {"inner", "outer {}", "longer text"}


def test_docstring_is_cleaned():
    text = textwrap.dedent(
        """\
        add(input, other) -> Tensor

        Adds :attr:`other` to ``input``. It works for all
        shapes that broadcast, see :func:`~torch.broadcast_tensors` for how that is done.

        .. note:: directive

        Parameters
        ----------
        other : Tensor
            what is added to every element of the first one, of any size

        >>> torch.add(one, two)
        tensor([1, 2, 3])
        """
    )
    body, summary = clean_text.split_docstring(text)
    assert summary == "Adds other to input."
    assert body.startswith("It works for all shapes that broadcast, see torch.broadcast_tensors for how")
    assert body.endswith("of any size torch.add(one, two)")
    assert "Parameters other : Tensor" in body and "directive" not in body


@pytest.mark.parametrize(
    "text",
    [
        "Too short.\n\n" + sentence(1, 40),
        "A summary alone, with nothing that follows.",
        "A fair summary.\n\n" + sentence(1, 24),
        "A fair summary.\n\n" + sentence(1, 30) + " a fair summary",
        "A fair summary.\n\n" + "x=1 " * 40,
    ],
    ids=["short summary", "no body", "short body", "summary in body", "no prose"],
)
def test_unfair_pairs_are_refused(text):
    assert clean_text.split_docstring(text) is None


def test_near_duplicates():
    duplicates, words = clean_text.NearDuplicates(), sentence(1, 200).split()
    assert not duplicates.seen(" ".join(words))
    assert duplicates.seen(" ".join(["other", *words[1:]]).upper())
    assert not duplicates.seen(" ".join(words[100:]) + " " + sentence(2, 100))


def test_bpe_is_what_fairseq_reads(tmp_path):
    """Ids equal fairseq's own encoder's, decoding gives the text back, any character included."""
    from fairseq.data.encoders.gpt2_bpe import GPT2BPE, GPT2BPEConfig

    lines = [sentence(i, 12) + f" it's {i} é naïve (x_{i})\u2028 日本" for i in range(30)]
    for split in SPLITS:
        for side in ("source", "target"):
            (tmp_path / f"{split}.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert train_bpe.train([tmp_path / "train.source"], tmp_path / "bpe", size=300) == 300
    train_bpe.encode(tmp_path / "bpe", tmp_path, tmp_path / "ids")
    files = {"gpt2_encoder_json": tmp_path / "bpe/encoder.json", "gpt2_vocab_bpe": tmp_path / "bpe/vocab.bpe"}
    bpe = GPT2BPE(GPT2BPEConfig(**{key: str(path) for key, path in files.items()}))
    ids = read_lines(tmp_path / "ids" / "test.bpe.target")
    assert ids == [bpe.encode(line) for line in lines]
    assert [bpe.decode(line) for line in ids] == lines
    entries = [line.split() for line in read_lines(tmp_path / "bpe" / "dict.txt")]
    assert sorted(int(index) for index, _ in entries) == list(range(300))
    assert sum(int(count) for _, count in entries) == len(" ".join(ids).split())


def test_official_bpe_gives_the_official_ids(shared_data):
    """ "Hello world!" is 31414 232 328 in the official dictionary, whose first four places are special symbols."""
    folder = shared_data / "tokenizer" / "gpt2_bpe"
    places = {line.split()[0]: 4 + place for place, line in enumerate(read_lines(folder / "dict.txt"))}
    ids = train_bpe.load(folder).encode("Hello world!").ids
    assert [places[str(index)] for index in ids] == [31414, 232, 328]


@pytest.mark.parametrize("script", ["quickstart/run.sh", "learning_check/run.sh", "common/setup_venv.sh"])
def test_shell_scripts_parse(script):
    assert subprocess.run(["bash", "-n", str(REPOSITORY / "examples" / script)]).returncode == 0


def fairseq_commands() -> list[list[str]]:
    settings, path = commands.Settings(), Path("folder")
    generate = commands.generate(settings, path, path, path, path)
    flags_of_systems = comparison.SYSTEM_FLAGS.items()
    return [
        commands.preprocess(path, path, path),
        commands.fresh(settings, path, path),
        commands.pretrain(settings, path, path, path),
        commands.finetune_plain(settings, path, path, path),
        commands.finetune_switchable(settings, path, path, path),
        *([*generate, *flags, *(["0.5"] if system == "random" else [])] for system, flags in flags_of_systems),
    ]


@pytest.mark.parametrize("command", fairseq_commands(), ids=lambda command: command[3])
def test_fairseq_parses_every_command(command, monkeypatch):
    from fairseq import options

    monkeypatch.chdir(REPOSITORY)
    name, arguments = command[3], command[4:]
    if name == "preprocess":
        options.get_preprocessing_parser().parse_args(arguments)
        return
    parser = {"train": options.get_training_parser, "generate": options.get_generation_parser}[name]()
    args = options.parse_args_and_arch(parser, arguments)
    assert args.task in ("translation", "switchable_task")
    assert args.truncate_source
    if name == "train":
        assert (args.encoder_layers, args.decoder_embed_dim) == (commands.Settings.layers, commands.Settings.dim)
    else:
        assert args.scoring == "rouge"


def test_both_finetunings_see_the_same():
    """The comparison is fair: apart from model, criterion and output folder the two commands are one."""
    settings, path = commands.Settings(), Path("folder")
    own = {"--user-dir", "--task", "--arch", "--criterion", "--policy-lr", "--policy-statistics-inputs"}

    def shared(command: list[str]) -> list[str]:
        skipped = {i for i, word in enumerate(command) if word in own} | {
            i + 1 for i, word in enumerate(command) if word in own
        }
        return [word for i, word in enumerate(command) if i not in skipped]

    plain = commands.finetune_plain(settings, path, path, path)
    assert shared(plain) == shared(commands.finetune_switchable(settings, path, path, path))


def test_report(tmp_path):
    right, stages = [f"red green blue {i}" for i in range(4)], Stages(tmp_path / "out")
    for system in comparison.SYSTEMS:
        write_generated(stages.out, system, ["", *right[1:]] if system == "learned" else right)
    for split in SPLITS:
        write_lines(tmp_path / f"{split}.source", ["text"])
    report.write(commands.Settings(updates=1, finetune_updates=2), stages, tmp_path)
    systems = json.loads((stages.out / "report.json").read_text(encoding="utf-8"))["systems"]
    assert systems["plain"]["cost"] == 1 and systems["plain"]["rougeL"] == pytest.approx(100)
    learned = systems["learned"]
    assert learned["rougeL"] == pytest.approx(75) and learned["cost"] == 0.5 and learned["seconds"] == 1.5
    interval = learned["rougeL_minus_plain"]
    assert interval["mean"] == pytest.approx(-25) and interval["low"] < -25 < interval["high"] <= 0
    text = (stages.out / "report.md").read_text(encoding="utf-8")
    assert "| learned | 75.00 | 75.00 | 75.00 | -25.00 [" in text
    assert text.count("- reference:") == report.SHOWN == 3
    assert "**3.** article 2\n\n- reference: red green blue 2\n- plain: red green blue 2\n" in text


def test_report_refuses_other_inputs(tmp_path):
    for system in comparison.SYSTEMS:
        write_generated(tmp_path, system, ["red"] * (3 if system == "random" else 4))
    with pytest.raises(ValueError, match="random and plain did not generate the same inputs"):
        comparison.evaluate(Stages(tmp_path))


def test_data_folder_is_checked_first(tmp_path):
    for split in SPLITS:
        for side in ("source", "target"):
            write_lines(tmp_path / f"{split}.{side}", ["one", "two"])
    assert quickstart.parse_args(["--data", str(tmp_path)]).data == tmp_path
    write_lines(tmp_path / "valid.target", ["one"])
    with pytest.raises(UserError, match=r"valid\.source has 2 lines, valid\.target 1"):
        quickstart.parse_args(["--data", str(tmp_path)])
    (tmp_path / "test.source").unlink()
    (tmp_path / "valid.target").unlink()
    with pytest.raises(UserError, match=r"lacks valid\.target"):
        quickstart.parse_args(["--data", str(tmp_path)])


def test_bpe_folder_is_checked_first(tmp_path):
    (tmp_path / "encoder.json").touch()
    with pytest.raises(UserError, match=r"--bpe-dir .* lacks vocab\.bpe, dict\.txt"):
        quickstart.parse_args(["--bpe-dir", str(tmp_path)])


@pytest.mark.parametrize("flags", ["--updates 0", "--finetune-updates -1", "--dim 130"])
def test_settings_are_checked_first(flags):
    with pytest.raises(UserError, match=f"{flags.split()[0]} .* must be"):
        quickstart.parse_args(flags.split())


def test_dialogues_that_are_too_long_are_left_out(tmp_path):
    pytest.importorskip("tokenizers")
    from tokenizer_files import byte_level

    byte_level().save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(str(tmp_path / "tokenizer.json"))
    texts = ["Hi.", "Hi. " * 40]
    records = [{"dialogue": text, "summary": f"{len(text)}", "summary1": "First."} for text in texts]
    for name in ("train", "dev", "test"):
        content = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"dialogsum.{name}.jsonl").write_text(content, encoding="utf-8")
    longest = len(tokenizer.encode(texts[1]).split())
    for most, expected in ((longest, texts), (longest - 1, texts[:1])):
        counts = dialogsum.convert(tmp_path, tmp_path / "out", True, tokenizer, most)
        assert counts == dict.fromkeys(("train", "valid", "test"), len(expected))
        assert read_lines(tmp_path / "out" / "train.source") == [text.strip() for text in expected]


def test_dialogsum(tmp_path):
    record = {"dialogue": "#Person1#: Hi.\n#Person2#: Hello.", "summary": "They\ngreet.", "summary1": "First."}
    for name in ("train", "dev", "test"):
        (tmp_path / f"dialogsum.{name}.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    assert dialogsum.convert(tmp_path, tmp_path / "out") == {"train": 1, "valid": 1, "test": 1}
    assert read_lines(tmp_path / "out" / "valid.source") == ["#Person1#: Hi. #Person2#: Hello."]
    targets = [read_lines(tmp_path / "out" / f"{split}.target") for split in SPLITS]
    assert targets == [["They greet."], ["They greet."], ["First."]]
    dialogsum.convert(tmp_path, tmp_path / "lines", lines=True)
    assert read_lines(tmp_path / "lines" / "valid.source") == [r"#Person1#: Hi.\n#Person2#: Hello."]
    shutil.move(tmp_path / "dialogsum.dev.jsonl", tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"neither dialogsum\.dev\.jsonl nor dialogsum\.dev\.jsonl\.gz"):
        dialogsum.convert(tmp_path, tmp_path / "out")
