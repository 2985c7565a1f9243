"""The summarization recipes: every command line they make, what they say of missing files, and a tiny run of all."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hugging_face.support import tiny_folder
from in_process import Training
from support import REPO, randomize
from test_generation import hypotheses
from test_layouts import SLOW

from examples.common.bpe import BPE_FILES
from examples.common.files import write_lines
from examples.quickstart import train_bpe
from examples.summarization import encode
from fairseq_switchdec.errors import UserError
from fairseq_switchdec.models import SwitchableBARTModel

FOLDER = REPO / "examples" / "summarization"
SCRIPTS = ("prepare", "train", "generate", "evaluate")
LAYOUTS = ("cpu", "1x32gb", "1x16gb", "8x32gb", "8x16gb", "4x8x32gb", "2x4x16gb")
UPDATE_TOKENS = 8 * 2048 * 4  # GPUs x --max-tokens x --update-freq of the paper
NODE = {"NODE_RANK": "1", "MASTER_ADDR": "node0"}

#: Stands for Python: writes down its arguments and makes what the command would.
RECORDER = """#!/bin/sh
case "$1" in -c | -) exit 0 ;; esac
for word in "$CUDA_VISIBLE_DEVICES" "$@"; do printf '%s\\0' "$word"; done > "$RECORDS/$$.new"
mv "$RECORDS/$$.new" "$RECORDS/$(date +%s%N).$$"
for word; do
    case "$previous" in --destdir | --results-path) mkdir -p "$word" ;; esac
    [ "$previous" != --results-path ] || echo end > "$word/generate-test.txt"
    [ "$previous" != --num-shards ] || shards="$word"
    if [ "$previous" = --shard-id ]; then
        [ "$word" != "${FAILS:-none}" ] || exit 1
        touch "out/report.shard-$word-of-$shards.json"
    fi
    previous="$word"
done
"""


@pytest.fixture
def recipe(tmp_path):
    """Calls a script with the recorder as Python; the commands it ran, their GPUs in front."""
    interpreter, records = tmp_path / "python", tmp_path / "records"
    interpreter.write_text(RECORDER)
    interpreter.chmod(0o755)
    records.mkdir()

    def call(script: str, *words: Any, check: bool = True, **environment: str) -> Any:
        result = subprocess.run(
            ["bash", str(FOLDER / f"{script}.sh"), *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": str(interpreter), "RECORDS": str(records), **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip
        commands = []
        for path in sorted(records.iterdir()):
            commands.append(path.read_text().split("\0")[:-1])
            path.unlink()
        assert not check or result.returncode == 0, result.stdout
        return SimpleNamespace(status=result.returncode, output=result.stdout, commands=commands)

    return call


@pytest.fixture
def folder(tmp_path):
    """Empty files where the scripts look for them."""
    names = ["start.pt", "bin/test.source-target.target.idx", "raw/test.source", "raw/test.target"]
    for name in (*names, "out/generate-test.txt", "out/report.json", *(f"bpe/{file}" for file in BPE_FILES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "bin" / "prepared.txt").write_text("bart\n")
    return tmp_path


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """What fairseq's own parsers make of a recorded command, and torchrun's of what is in front of it."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from torch.distributed.run import get_args_parser

    launcher = None
    words = words[1:]
    if words[:2] == ["-m", "torch.distributed.run"]:
        launcher = get_args_parser().parse_args(words[2:])
        words = ["-m", launcher.training_script, *launcher.training_script_args]
        assert launcher.module
    assert words[:2] == ["-m", "fairseq_switchdec"]
    name, arguments = words[2], words[3:]
    monkeypatch.chdir(REPO)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    if name == "preprocess":
        return options.get_preprocessing_parser().parse_args(arguments), launcher
    parser = {"train": options.get_training_parser, "generate": options.get_generation_parser}[name]()
    args = options.parse_args_and_arch(parser, arguments)
    convert_namespace_to_omegaconf(args)  # checks the types
    return args, launcher


# --- command lines ---


@pytest.mark.parametrize("name", ["common", *SCRIPTS])
def test_shell_scripts_parse(name):
    assert subprocess.run(["bash", "-n", str(FOLDER / f"{name}.sh")]).returncode == 0


@pytest.mark.parametrize(("layout", "dataset"), [*((layout, "cnndm") for layout in LAYOUTS), ("8x32gb", "xsum")])
def test_train(recipe, folder, monkeypatch, layout, dataset):
    more = ("--lr", "1e-4", "--seed", 3)
    (words,) = recipe("train", dataset, layout, "bin", "start.pt", "save", *more, **NODE).commands
    args, launcher = parse(words, monkeypatch)
    assert (args.task, args.arch, args.criterion) == ("switchable_task", "switchable_bart", "lexico_policy_criterion")
    assert args.lr == [1e-4] and args.seed == 3, "what the user adds counts"
    assert (args.max_update, int(args.total_num_update), args.warmup_updates) == (50_000, 50_000, 500)
    assert (args.dropout, args.attention_dropout, args.label_smoothing, args.clip_norm) == (0.1, 0.1, 0.1, 0.1)
    assert args.finetune_from_model == "start.pt" and args.save_dir == "save" and args.data == "bin"
    assert args.truncate_source and args.find_unused_parameters and args.share_all_embeddings
    assert args.fp16 != args.cpu == (layout == "cpu")
    assert getattr(args, "checkpoint_activations", False) == layout.endswith("16gb")
    assert args.policy_cost_beam == {"cnndm": 4, "xsum": 6}[dataset]

    *nodes, gpus = map(int, re.findall(r"(\d+)x", layout)) if layout != "cpu" else [1]
    processes = (nodes or [1])[0] * gpus
    assert processes * args.max_tokens * args.update_freq[0] == UPDATE_TOKENS
    if nodes:
        assert [int(launcher.nnodes), int(launcher.nproc_per_node)] == [*nodes, gpus]
        assert (launcher.node_rank, launcher.master_addr, launcher.master_port) == (1, "node0", 29500)
    else:
        assert launcher is None and args.distributed_world_size == processes


@pytest.mark.parametrize("recipe_name", ["gpt2", "t5", "llama"])
def test_recipes_of_the_other_backbones(recipe, folder, monkeypatch, recipe_name):
    (folder / "bin" / "prepared.txt").write_text(f"{recipe_name}\n")
    (folder / "bpe" / "tokenizer.json").touch()
    (words,) = recipe("train", recipe_name, "8x16gb", "bin", "start.pt", "save").commands
    args, _ = parse(words, monkeypatch)
    assert args.arch == f"switchable_{recipe_name}" and args.finetune_from_model == "start.pt"
    assert args.fp16 == (recipe_name != "t5") and not args.bf16
    assert args.checkpoint_activations and args.max_target_positions > 140 and args.label_smoothing == 0
    (words,) = recipe("train", recipe_name, "1x32gb", "bin", "start.pt", "save", PRECISION="").commands
    args, _ = parse(words, monkeypatch)
    assert not args.fp16 and not args.amp
    (words,) = recipe("generate", recipe_name, "bin", "bpe", "start.pt", "out").commands
    args, _ = parse(words, monkeypatch)
    assert (args.bpe, args.tokenizer_json, args.prefix_size) == ("tokenizer_json", "bpe/tokenizer.json", 0)
    assert (args.beam, args.lenpen, args.no_repeat_ngram_size) == (4, 2.0, 3)
    encoding, binarizing = recipe("prepare", recipe_name, "raw", "bpe", "new").commands
    assert encoding[3:5] == [recipe_name, str(folder / "bpe")]
    args, _ = parse(binarizing, monkeypatch)
    assert args.srcdict == "bpe/dict.txt" and args.joined_dictionary and args.tgtdict is None


@pytest.mark.parametrize("dataset", ["cnndm", "xsum"])
def test_generate_decodes_as_fairseqs_recipe(recipe, folder, monkeypatch, dataset):
    summarize = pytest.importorskip("fairseq.examples.bart.summarize")
    (words,) = recipe("generate", dataset, "bin", "bpe", "start.pt", "out", "--batch-size", 5).commands
    args, _ = parse(words, monkeypatch)
    expected = {"cnndm": summarize.CNN_KWARGS, "xsum": summarize.XSUM_KWARGS}[dataset]
    assert {name: getattr(args, name) for name in expected} == expected
    assert args.max_len_a == 0 and args.prefix_size == 1 and args.truncate_source
    assert (args.gen_subset, args.path, args.results_path, args.batch_size) == ("test", "start.pt", "out", 5)
    assert (args.bpe, args.gpt2_vocab_bpe) == ("gpt2", "bpe/vocab.bpe")


def test_prepare_and_evaluate(recipe, folder, monkeypatch):
    encoding, binarizing = recipe("prepare", "raw", "bpe", "new", "--workers", 3, SPLITS="valid test").commands
    assert encoding[1:3] == ["-m", "examples.summarization.encode"]
    assert encoding[3:9] == ["cnndm", *(str(folder / name) for name in ("bpe", "raw", "new.bpe")), "--splits", "valid"]
    args, _ = parse(binarizing, monkeypatch)
    assert (args.trainpref, args.validpref, args.testpref) == (None, "new.bpe/valid.bpe", "new.bpe/test.bpe")
    assert args.srcdict == args.tgtdict == "bpe/dict.txt" and args.workers == 3

    from fairseq_switchdec.scoring.command import get_parser

    (words,) = recipe("evaluate", "out", "raw", "--files2rouge").commands
    assert words[1:4] == ["-m", "fairseq_switchdec", "score"]
    scoring = get_parser().parse_args(words[4:])
    assert scoring.hypotheses == [["SD=out/generate-test.txt"]] and scoring.files2rouge
    assert (scoring.references, scoring.source, scoring.json) == (
        "raw/test.target",
        "raw/test.source",
        "out/scores.json",
    )


def test_encoding_runs_ours_where_another_examples_lies(recipe, folder):
    """A checkout of fairseq has a package ``examples`` too, and Python looks in the present folder first."""
    other = folder / "examples" / "__init__.py"
    other.parent.mkdir()
    other.write_text("raise SystemExit('the other one')")
    for name in BPE_FILES[:2]:
        (folder / "bpe" / name).write_text("{}" if name.endswith("json") else "#version: 0.2\n")
    result = recipe("prepare", "raw", "bpe", "new", check=False, SPLITS="test", PYTHON=sys.executable)
    assert result.status == 1 and f"{folder}/raw/test.source is empty" in result.output


# --- mistakes ---


@pytest.mark.parametrize("script", SCRIPTS)
def test_usage(recipe, script):
    result = recipe(script, check=False)
    assert result.status == 2 and f"bash examples/summarization/{script}.sh" in result.output
    result = recipe(script, *"abcdef", check=False, PYTHON="/bin/false")
    assert result.status == 1 and "'/bin/false' has no fairseq_switchdec" in result.output


TRAIN = ("cnndm", "8x32gb", "bin", "start.pt", "save")
GENERATE = ("cnndm", "bin", "bpe", "start.pt", "out")


@pytest.mark.parametrize(
    ("script", "words", "missing", "message"),
    [
        ("prepare", ("raw", "bpe", "new"), "bpe/vocab.bpe", r"no file bpe/vocab\.bpe: get it from https://dl\.fb"),
        ("prepare", ("raw", "bpe", "bin"), "bin/prepared.txt", "bin exists and prepare.sh has not made it"),
        ("train", TRAIN, "bin/prepared.txt", r"no file bin/prepared\.txt: make bin with prepare\.sh"),
        ("train", TRAIN, "start.pt", r"no file start\.pt: the checkpoint to start from"),
        ("train", ("cnn", *TRAIN[1:]), None, "unknown recipe 'cnn': cnndm, xsum, gpt2, t5 or llama"),
        ("train", ("cnndm", "8x24gb", *TRAIN[2:]), None, "unknown layout '8x24gb'"),
        ("train", ("cnndm", "3x32gb", *TRAIN[2:]), None, "3x32gb is 3 GPUs, which cannot share"),
        ("train", ("cnndm", "2x8x32gb", *TRAIN[2:]), None, "set NODE_RANK .* and MASTER_ADDR"),
        ("generate", GENERATE, "bin/prepared.txt", r"no file bin/prepared\.txt"),
        ("generate", GENERATE, "bin/test.source-target.target.idx", "has not prepared the test set"),
        (
            "train",
            ("t5", *TRAIN[1:]),
            None,
            "another model, not for t5: make another folder, with prepare.sh t5",
        ),
        (
            "prepare",
            ("t5", "raw", "bpe", "new"),
            None,
            "no file bpe/tokenizer.json: make bpe with: .* import MODEL bpe",
        ),
        ("generate", GENERATE, "bpe/encoder.json", r"no file bpe/encoder\.json: get it from"),
        ("generate", GENERATE, "start.pt", r"no file start\.pt: name a checkpoint"),
        (
            "evaluate",
            ("out", "raw"),
            "out/generate-test.txt",
            r"no file out/generate-test\.txt: generate\.sh writes it",
        ),
        ("evaluate", ("out", "raw"), "raw/test.source", r"no file raw/test\.source: the texts that prepare\.sh"),
    ],
)
def test_what_is_missing_is_said_before_work_starts(recipe, folder, script, words, missing, message):
    if missing:
        (folder / missing).unlink()
    result = recipe(script, *words, check=False)
    assert result.status == 1 and not result.commands
    assert re.fullmatch(f"{script}: .*{message}.*\n", result.output)


def test_texts_are_checked_before_they_are_encoded(tmp_path):
    with pytest.raises(UserError, match=r"no file .*tokenizer\.json: make the folder with .* import"):
        encode.check_bpe("t5", tmp_path)
    with pytest.raises(UserError, match=r"no file .*encoder\.json: get it from https://dl"):
        encode.check_bpe("xsum", tmp_path)
    write_lines(tmp_path / "val.source", ["one", "two"])
    with pytest.raises(UserError, match=r"no file .*val\.target: RAW must hold valid\.source"):
        encode.find(tmp_path, ["valid"])
    write_lines(tmp_path / "val.target", ["one"])
    with pytest.raises(UserError, match=r"val\.source has 2 lines, .*val\.target 1: they must be in step"):
        encode.find(tmp_path, ["valid"])
    (tmp_path / "val.target").write_bytes(b"caf\xe9\n" * 2)
    with pytest.raises(UserError, match=r"val\.target is not UTF-8"):
        encode.find(tmp_path, ["valid"])


# --- going on ---


def test_training_goes_on_without_the_checkpoint_it_started_from(recipe, folder):
    (folder / "start.pt").unlink()
    (folder / "save").mkdir()
    (folder / "save" / "checkpoint_last.pt").touch()
    assert len(recipe("train", *TRAIN).commands) == 1


def test_generation_is_kept_until_something_changes(recipe, folder):
    assert len(recipe("generate", *GENERATE).commands) == 1
    kept = recipe("generate", *GENERATE)
    assert not kept.commands and "done before, kept" in kept.output
    assert len(recipe("generate", *GENERATE, "--fp16").commands) == 1
    os.utime(folder / "start.pt", (time.time() + 5, time.time() + 5))
    assert len(recipe("generate", *GENERATE, "--fp16").commands) == 1
    (folder / "out" / "report.json").unlink()  # by the user
    assert len(recipe("generate", *GENERATE, "--fp16").commands) == 1


def test_shards(recipe, folder):
    """Each on its GPU; one that fails is run again, alone."""
    shards = {"SHARDS": "3", "CUDA_VISIBLE_DEVICES": "4,5,7"}
    result = recipe("generate", *GENERATE, check=False, FAILS="1", **shards)
    assert result.status == 1 and "not all was generated (see out/shard-1-of-3/log.txt)" in result.output
    found = {(words[0], words[words.index("--shard-id") + 1]) for words in result.commands}
    assert found == {("4", "0"), ("5", "1"), ("7", "2")}
    again, merging = recipe("generate", *GENERATE, **shards).commands
    assert again[0] == "5" and again[again.index("--results-path") + 1] == "out/shard-1-of-3"
    assert merging[1:6] == ["-m", "fairseq_switchdec", "report", "merge", "out/report.json"]
    assert (folder / "out" / "generate-test.txt").read_text() == "end\n" * 3
    assert not (folder / "out" / "report.json").exists()  # that of another run is not left for evaluate.sh
    (folder / "out" / "report.shard-2-of-3.json").unlink()
    assert [words[0] for words in recipe("generate", *GENERATE, **shards).commands][:-1] == ["7"]
    result = recipe("generate", *GENERATE, check=False, SHARDS="3", CUDA_VISIBLE_DEVICES="0")
    assert result.status == 1 and "SHARDS=3, but CUDA_VISIBLE_DEVICES names 1 GPUs" in result.output

    # As an array job runs them, each task with a GPU of its own; then the same command joins them.
    for task in ("0", "1", "2"):
        shutil.rmtree(folder / "out" / f"shard-{task}-of-3")
        alone = recipe("generate", *GENERATE, SHARDS="3", SHARD=task, CUDA_VISIBLE_DEVICES="0")
        assert [(words[0], words[words.index("--shard-id") + 1]) for words in alone.commands] == [("0", task)]
    (merging,) = recipe("generate", *GENERATE, **shards).commands
    assert merging[1:6] == ["-m", "fairseq_switchdec", "report", "merge", "out/report.json"]
    for task in ("3", "-1", "one"):
        result = recipe("generate", *GENERATE, check=False, SHARDS="3", SHARD=task)
        assert result.status == 1 and f"SHARD={task} is none of the 3 shards: name one from 0 to 2" in result.output


# --- the whole chain ---

POSITIONS = 160
SMALL = "--max-source-positions 160 --max-target-positions 160 --num-workers 0 --cpu".split()
MODEL = "--encoder-layers 3 --decoder-layers 2 --encoder-embed-dim 24 --encoder-ffn-embed-dim 40".split()
MODEL += "--encoder-attention-heads 3 --decoder-attention-heads 2 --decoder-embed-dim 24".split()
TEST_LINES = ["", "  the river, the bridge  ", "a long one: " + "window garden candle " * 120, "naïve \u2028 日本 x_1"]


def run(script: str, *words: Any, start: bool = False) -> Any:
    """A script with the real Python: its output, or with ``start`` the process."""
    command = ["bash", str(FOLDER / f"{script}.sh"), *map(str, words)]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "WORKERS": "2"}
    streams: Any = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if start:
        return subprocess.Popen(command, cwd=REPO, env=environment, **{**streams, "stdout": subprocess.DEVNULL})
    result = subprocess.run(command, cwd=REPO, env=environment, timeout=600, **streams)
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Made-up texts through all four scripts, the training killed in between; folders and outputs."""
    folder = tmp_path_factory.mktemp("chain")
    raw, bpe, data = folder / "raw", folder / "bpe", folder / "bin"
    words = ["apple", "river", "window", "garden", "silver", "candle", "bridge", "forest"]
    for split, size in (("train", 40), ("val", 8), ("test", 8)):
        lines = [" ".join(words[(i * k + i) % 8] for k in range(5 + i % 9)) for i in range(1, size + 1)]
        write_lines(raw / f"{split}.target", [line.title() for line in lines])
        text = "\n".join([*TEST_LINES, *lines[4:]] if split == "test" else lines) + "\n"
        (raw / f"{split}.source").write_text(text, encoding="utf-8")
    train_bpe.train([raw / "train.source", raw / "train.target"], bpe, size=280)

    prepared = [run("prepare", raw, bpe, data) for _ in range(2)]
    training = Training(data, folder / "start", *SMALL, "--share-all-embeddings")
    randomize(dict(training.model.named_parameters()))
    start, save, out = training.save(), folder / "save", folder / "out"

    schedule = "--max-update 30 --total-num-update 30 --warmup-updates 2 --update-freq 1 --lr 1e-3".split()
    schedule += "--save-interval-updates 2 --keep-interval-updates 20 --policy-statistics-inputs 8".split()
    command = ("train", "cnndm", "cpu", data, start, save, *SMALL, *MODEL, *schedule, "--max-tokens", 320)
    process = run(*command, start=True)
    while process.poll() is None and not list(save.glob("checkpoint_*_4.pt")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    killed = process.wait()
    left = sorted(path.name for path in save.glob("checkpoint_*.pt"))
    start.unlink()  # it can only go on
    log = run(*command)

    checkpoint = save / "checkpoint_last.pt"
    generated = run("generate", "cnndm", data, bpe, checkpoint, out, *SMALL)
    evaluated = run("evaluate", out, raw)
    return SimpleNamespace(**{name: value for name, value in locals().items() if name != "tmp_path_factory"})


def test_encoded_texts_keep_in_step(chain):
    from fairseq.data.encoders.gpt2_bpe import GPT2BPE, GPT2BPEConfig

    codes = [str(chain.bpe / name) for name in ("encoder.json", "vocab.bpe")]
    bpe = GPT2BPE(GPT2BPEConfig(gpt2_encoder_json=codes[0], gpt2_vocab_bpe=codes[1]))
    lines = Path(f"{chain.data}.bpe/test.bpe.source").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 9 and lines[-1] == "" and lines[0] == "<s>"
    assert [bpe.decode(line.removeprefix("<s> ")) for line in lines[1:4]] == [text.strip() for text in TEST_LINES[1:]]
    assert "1 of them empty texts" in chain.prepared[0]
    assert chain.prepared[1].count("done before, kept") == 7  # six texts and the binary data


def test_training_goes_on_after_a_kill(chain):
    assert chain.killed == -signal.SIGKILL and chain.left
    found = re.search(r"Loaded checkpoint .*/save/checkpoint_last\.pt \(epoch \d+ @ (\d+) updates\)", chain.log)
    assert found is not None and 2 <= int(found[1]) < 30
    assert "loading pretrained model" not in chain.log
    state = torch.load(chain.checkpoint, weights_only=False)
    assert state["optimizer_history"][-1]["num_updates"] == 30


def test_generate_and_the_hub_interface_say_the_same(chain):
    """Same words and scores for the same lines, with CNN/DM's beam settings, an empty and a cut source among them."""
    bart = SwitchableBARTModel.from_pretrained(
        str(chain.save), "checkpoint_last.pt", str(chain.data),
        gpt2_encoder_json=str(chain.bpe / "encoder.json"), gpt2_vocab_bpe=str(chain.bpe / "vocab.bpe"),
    )  # fmt: skip
    bart.eval()
    decoding: dict[str, Any] = dict(lenpen=2.0, max_len_b=140, min_len=55, no_repeat_ngram_size=3)
    lines = (chain.raw / "test.source").read_text(encoding="utf-8").split("\n")[:-1]
    texts = bart.sample([line.strip() for line in lines], beam=4, **decoding)
    output = (chain.out / "generate-test.txt").read_text(encoding="utf-8")
    # A hypothesis ends where its P- line begins: such a model may write a newline.
    shown = dict(re.findall(r"^D-(\d+)\t\S+\t(.*?)\nP-", output, flags=re.M | re.S))
    assert len(set(texts)) > 4
    assert [" ".join(shown[str(index)].split()) for index in range(8)] == [" ".join(text.split()) for text in texts]

    sources = [bart.encode(line.strip()) for line in lines]
    assert max(source.numel() for source in sources) == POSITIONS
    best = [beams[0] for beams in bart.generate(sources, beam=4, **decoding)]
    for index, (score, ids) in hypotheses(output).items():
        assert ids == bart.task.target_dictionary.string(best[index]["tokens"])
        assert score == pytest.approx(float(best[index]["score"]) / torch.tensor(2.0).log().item(), abs=1e-4)
    # Each text of this data begins with <s>, and so does one that is given without; as fairseq-interactive's are.
    bare = [source[1:] for source in sources[1:]]
    for one, other in zip(bart.generate(bare, beam=4, **decoding), best[1:]):
        assert one[0]["tokens"].tolist() == other["tokens"].tolist()
    command = [sys.executable, "-m", "fairseq_switchdec", "interactive", chain.data, *SMALL, "--truncate-source"]
    command += ["--user-dir", "fairseq_switchdec", "--task", "switchable_task", "--source-lang", "source"]
    command += ["--target-lang", "target", "--path", chain.checkpoint, "--beam", 4, "--bpe", "gpt2"]
    command += ["--gpt2-encoder-json", chain.bpe / "encoder.json", "--gpt2-vocab-bpe", chain.bpe / "vocab.bpe"]
    for name, value in decoding.items():
        command += [f"--{name.replace('_', '-')}", value]
    typed = "".join(f"{line.strip()}\n" for line in lines)
    result = subprocess.run(list(map(str, command)), cwd=REPO, input=typed, capture_output=True, text=True, check=True)
    assert {index: ids for index, (_, ids) in hypotheses(result.stdout).items()} == {
        index: bart.task.target_dictionary.string(beams["tokens"]) for index, beams in enumerate(best)
    }
    # Without <s> in front of the source it is another text.
    bart.model.openings.with_bos[0] = 0
    found = bart.generate(bare, beam=4, **decoding)
    assert any(one[0]["tokens"].tolist() != other["tokens"].tolist() for one, other in zip(found, best[1:]))


def test_scores_and_cost(chain):
    scores = json.loads((chain.out / "scores.json").read_text())
    assert scores["pairs"] == 8 and list(scores["systems"]) == ["SD", "lead-3"]
    report = json.loads((chain.out / "report.json").read_text())
    assert f"SD: Switchable decisions: 8 inputs at {report['cost']:.1%} of the keep-all FLOPs" in chain.evaluated
    assert "| lead-3 |" in chain.evaluated and "Generate test with beam=4" in chain.generated


# --- the other backbones ---


@pytest.mark.parametrize("name", ["gpt2", "t5", "llama"])
def test_chain_of_another_backbone(tmp_path, name):
    """A tiny folder of Hugging Face's, imported, through all four scripts; texts are encoded as its model reads them.

    SWITCHDEC_SLOW_TESTS=1 runs all three.
    """
    if name != "gpt2" and not SLOW:
        pytest.skip("SWITCHDEC_SLOW_TESTS=1 runs it")
    pytest.importorskip("transformers")
    from fairseq_switchdec.models.hugging_face.importer import import_model
    from fairseq_switchdec.texts.tokenizer import TextTokenizer

    longest = {"gpt2": "n_positions", "llama": "max_position_embeddings"}
    tiny_folder(name, tmp_path / "theirs", **({longest[name]: 256} if name in longest else {}))
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours"))
    raw, data, save, out = (tmp_path / part for part in ("raw", "bin", "save", "out"))
    words = ["apple", "river", "window", "garden", "silver"]
    for split, size in (("train", 24), ("valid", 8), ("test", 6)):
        lines = [" ".join(words[(i * k + i) % 5] for k in range(3 + i % 4)) for i in range(size)]
        write_lines(raw / f"{split}.target", [line.title() for line in lines])
        write_lines(raw / f"{split}.source", [*lines[:-1], "a long one: " + "window garden " * 300])
    run("prepare", name, raw, tmp_path / "ours", data)
    tokenizer = TextTokenizer(str(tmp_path / "ours" / "tokenizer.json"))
    for side in ("source", "target"):
        ids = Path(f"{data}.bpe/valid.bpe.{side}").read_text().splitlines()[1]
        text = (raw / f"valid.{side}").read_text().splitlines()[1]
        assert tokenizer.decode(ids.split()) == encode.PREFIXES[name][side] + text

    schedule = "--max-update 3 --total-num-update 4 --warmup-updates 1 --update-freq 1 --policy-statistics-inputs 8"
    small = "--num-workers 0 --cpu --max-source-positions 200".split()
    command = ("train", name, "cpu", data, tmp_path / "ours" / "model.pt", save, *schedule.split(), *small)
    log = run(*command, "--max-tokens", 1000, "--save-interval-updates", 2)
    assert "policy_lr" in log or "| valid |" in log or "done training" in log
    checkpoint = save / "checkpoint_last.pt"
    output = run("generate", name, data, tmp_path / "ours", checkpoint, out, "--cpu", "--beam", 2, "--batch-size", 4)
    assert "Generate test with beam=2" in output
    report = json.loads((out / "report.json").read_text())
    assert report["inputs"] == 6
    run("evaluate", out, raw)
    assert json.loads((out / "scores.json").read_text())["pairs"] == 6
