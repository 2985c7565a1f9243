"""GLUE's files: columns, bad rows, measures, submission files; on made-up rows and on real ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from fairseq import options

from examples.glue import evaluate, train
from fairseq_switchdec.glue.metrics import measures, scored, submission
from fairseq_switchdec.glue.rows import BadRow, Row, read_rows
from fairseq_switchdec.glue.tasks import GLUE

#: A header and a row of each task's dev file.
FILES = {
    "QQP": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "7\t1\t2\tWhy?\tHow \"so\"?\t1"),
    "QNLI": ("index\tquestion\tsentence\tlabel", "4\tWhy?\tHow \"so\"?\tentailment"),
    "MRPC": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t10\t11\tWhy?\tHow \"so\"?"),
    "STS-B": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "4\ta\tb\tc\td\te\tf\tWhy?\tHow \"so\"?\t3.800",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_columns_are_found_by_name(name, tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text("\n".join(FILES[name]) + "\n", encoding="utf-8")
    (row,) = read_rows(str(path), GLUE[name])
    assert isinstance(row, Row) and row.texts == ("Why?", 'How "so"?')
    assert row.label in ("1", "entailment", "3.800")
    assert row.index == ("4" if "index" in FILES[name][0].split("\t") else "0")


def test_cola_has_a_header_only_in_its_test_file(tmp_path):
    dev, test = tmp_path / "dev.tsv", tmp_path / "test.tsv"
    dev.write_text("gj04\t1\t\tThe sailors rode.\ngj04\t0\t*\tThe sailors the.\n")
    test.write_text("index\tsentence\n0\tBill whistled.\n")
    assert [(row.index, row.texts, row.label) for row in read_rows(str(dev), GLUE["CoLA"])] == [
        ("0", ("The sailors rode.",), "1"), ("1", ("The sailors the.",), "0"),
    ]  # fmt: skip
    assert [(row.index, row.texts, row.label) for row in read_rows(str(test), GLUE["CoLA"])] == [
        ("0", ("Bill whistled.",), None)
    ]


def test_json_lines(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    rows = ['{"sentence": "fine", "label": 1}', "{", "[1]", '{"sentence": 3}', '{"sentence": "a\\nb", "index": 9}']
    with gzip.open(path, "wt") as file:
        file.write("\n".join(rows))
    found = list(read_rows(str(path), GLUE["SST-2"]))
    assert [type(row) for row in found] == [Row, BadRow, BadRow, BadRow, Row]
    assert found[0].label == "1" and found[4].index == "9" and found[4].line == 5
    assert found[1].reason.startswith("not JSON") and "sentence" in found[3].reason


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_of_other_editors(tmp_path, end):
    """A byte order mark, lines that end as on Windows, NUL bytes; numbers that JSON does not have."""
    path = tmp_path / "rows.tsv"
    path.write_bytes(end.join(["\ufeffsentence\tlabel", "fi\0ne\t1", ""]).encode())
    assert list(read_rows(str(path), GLUE["SST-2"])) == [Row(2, "0", ("fi\0ne",), "1")]
    path = tmp_path / "rows.jsonl"
    rows = ['\ufeff{"sentence": "fine"}', '{"sentence": "fine", "label": NaN}', '{"sentence": Infinity}', "\0"]
    path.write_bytes(end.join(rows).encode())
    found = list(read_rows(str(path), GLUE["SST-2"]))
    assert found[0] == Row(1, "0", ("fine",)) and [type(row) for row in found[1:]] == [BadRow] * 3
    path.write_text('{"sentence1": "a", "sentence2": "b", "score": NaN}\n')
    (row,) = read_rows(str(path), GLUE["STS-B"])
    assert isinstance(row, BadRow) and "is no number from 0 to 5" in row.reason


def test_files_that_cannot_be_used(tmp_path):
    wrong = tmp_path / "dev.tsv"
    wrong.write_text("text\tlabel\nfine\t1\n")
    with pytest.raises(SystemExit, match="the header lacks 'sentence'"):
        list(read_rows(str(wrong), GLUE["SST-2"]))
    (tmp_path / "dev.tsv.gz").write_bytes(gzip.compress(b"sentence\tlabel\nfine\t1\n")[:-9])
    with pytest.raises(SystemExit, match="cannot be read"):
        list(read_rows(str(tmp_path / "dev.tsv.gz"), GLUE["SST-2"]))
    with pytest.raises(SystemExit, match=r"nowhere.tsv cannot be read: No such file"):
        list(read_rows("nowhere.tsv", GLUE["SST-2"]))


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [("SST-2", "SST-2/dev.tsv", 872), ("RTE", "RTE/dev.tsv", 277), ("RTE", "RTE/train.tsv", 2490),
     ("MNLI", "MNLI/16-13_dev_matched.tsv", 48), ("MNLI", "MNLI/merged_train_subset.jsonl.gz", 19636)],
)  # fmt: skip
def test_real_files(shared_data: Path, name: str, file: str, count: int) -> None:
    rows = list(read_rows(str(shared_data / "glue" / file), GLUE[name]))
    assert len(rows) == count
    good = [row for row in rows if isinstance(row, Row)]
    assert len(good) >= 0.999 * count
    assert {row.label for row in good} == set(GLUE[name].labels)


# --- measures ---


def test_measures_by_hand() -> None:
    gold, predicted = list("110010"), list("101010")  # 2 hits of 1, 1 miss, 1 false, 2 of 0
    assert measures(GLUE["QQP"], gold, predicted) == pytest.approx({"accuracy": 100 * 4 / 6, "f1": 100 * 4 / 6})
    found = measures(GLUE["CoLA"], gold, predicted)
    assert found["matthews"] == pytest.approx(100 * (2 * 2 - 1) / 9)
    line = measures(GLUE["STS-B"], ["0", "1", "2", "5"], ["1", "3", "5", "11"])
    assert line == pytest.approx({"pearson": 100.0, "spearman": 100.0})
    assert measures(GLUE["STS-B"], ["0", "1", "2", "3"], ["0", "1", "4", "90"])["spearman"] == pytest.approx(100)
    with pytest.raises(SystemExit, match="no row with both"):
        measures(GLUE["RTE"], [], [])


def write_lines(path: Path, *entries: dict) -> str:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


def test_submission_misses_no_row(tmp_path, capsys):
    path = write_lines(tmp_path / "a", {"index": "4", "label": "entailment"}, {"index": "5", "error": "empty"})
    assert submission(GLUE["RTE"], path) == ("index\tprediction\n4\tentailment\n5\tentailment\n", 1)
    scores = write_lines(tmp_path / "b", {"index": "0", "score": 5.2}, {"index": "1", "score": -0.1})
    assert submission(GLUE["STS-B"], scores)[0] == "index\tprediction\n0\t5.000\n1\t0.000\n"
    evaluate.main(["RTE", "--submission", str(tmp_path / "RTE.tsv"), path])
    assert "1 rows that could not be predicted are filled" in capsys.readouterr().out
    assert (tmp_path / "RTE.tsv").read_text().startswith("index\tprediction\n4\t")


def test_evaluation_table(tmp_path, capsys):
    right = {"label": "1", "gold": "1"}
    path = write_lines(tmp_path / "a", right, {"label": "0", "gold": "1"}, {"error": "empty"})
    (tmp_path / "r").write_text('{"cost": 0.5, "attention_skipped": 0.25, "ffn_skipped": 0, "tokens_dropped": 0.1}')
    evaluate.main(["SST-2", f"learned={path}", "--reports", f"learned={tmp_path / 'r'}"])
    shown = capsys.readouterr().out
    assert "| learned | 50.00 | 50.0 % | 25.0 % | 0.0 % | 10.0 % | (1 rows without a prediction)" in shown
    assert scored(GLUE["SST-2"], path) == ({"accuracy": 50.0}, 1)
    (tmp_path / "c").write_text("{}\n")
    with pytest.raises(SystemExit, match="line 1: not a prediction"):
        scored(GLUE["SST-2"], str(tmp_path / "c"))


# --- the recipe ---


@pytest.mark.parametrize("name", GLUE)
@pytest.mark.parametrize("plain", [False, True])
def test_recipes_parse(name: str, plain: bool) -> None:
    """Every option is one of fairseq's or ours, and the paper's settings are among them."""
    words = [name, f"{name}-bin", "--bart", "model.pt", "--save-dir", "out", *["--plain"] * plain]
    args, extra = train.parse_args([*words, "--fp16"])
    parsed = options.parse_args_and_arch(options.get_training_parser(), train.command(args, extra))
    assert parsed.task == ("sentence_prediction" if plain else "switchable_sentence_prediction")
    assert parsed.fp16 and parsed.finetune_from_model == "model.pt"
    assert parsed.num_classes == (1 if name == "STS-B" else 3 if name == "MNLI" else 2)
    table = {"MNLI": (5e-6, 128, 30968, 1858), "RTE": (1e-5, 32, 1018, 61), "SST-2": (5e-6, 128, 5233, 314)}
    if name in table:
        batch = parsed.batch_size * parsed.update_freq[0]
        assert (parsed.lr[0], batch, parsed.max_update, parsed.warmup_updates) == table[name]
