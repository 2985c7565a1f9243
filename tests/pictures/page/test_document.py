"""The page as a file: what a parser finds in it, whatever the texts are; its policy; its data."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from page_support import ONE_STACK, TWO_STACKS, make_report

from fairseq_switchdec.decisions import DecisionSpace
from fairseq_switchdec.pictures.page.document import build_page
from fairseq_switchdec.pictures.page.view import Source, input_view

HOSTILE = {
    "end": "</script><script>alert(1)</script>",
    "comment": "<!-- <script> --!>",
    "right-to-left": "a\u202eb\u2066c\u200fd",
    "surrogate": "\ud800 \udfff",
    "control": "".join(map(chr, range(32))) + "\x7f\x85\u2028",
    "entities": "&lt;b&gt; &amp; \"'`",
    "template": "$data ${title} $$",
    "megabyte": "x" * 1_000_000,
    "nothing": "",
}


class Parsed(HTMLParser):
    """Elements with their attributes, and their text by element, in order."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self.texts.append(("", ""))  # of the element around

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] = (self.texts[-1][0], self.texts[-1][1] + data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def all(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def page_of(folder: Path, text: str, title: str = "title", space: DecisionSpace = TWO_STACKS) -> str:
    report = json.loads(make_report(folder, [3, 5, 8], space).read_text())
    views = [input_view(entry, Source(text), text, text) for entry in report["per_input"]]
    return build_page(report, views, title, ["a <note>"])


@pytest.mark.parametrize("kind", HOSTILE)
def test_texts_add_no_element(tmp_path: Path, kind: str) -> None:
    plain, hostile = (Parsed(page_of(tmp_path, text, text[:99])) for text in ("text", HOSTILE[kind]))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements] and not hostile.comments
    data = json.loads(hostile.all("script")[0])
    assert [entry["hypothesis"] for entry in data["inputs"]] == [HOSTILE[kind]] * 3
    assert data["inputs"][0]["source"] == [[0, HOSTILE[kind]]]
    page_of(tmp_path, HOSTILE[kind], HOSTILE[kind][:99]).encode()  # can be written


def test_texts_are_in_the_file_as_ascii(tmp_path: Path) -> None:
    """No character turns the file's own lines around in an editor."""
    page = page_of(tmp_path, "a\u202eb é 😀", "\u202e \udcff")
    assert not {"\u202e", "\udcff", "é", "😀"} & set(page)


def test_only_its_own_program_and_style_are_allowed(tmp_path: Path) -> None:
    parsed = Parsed(page_of(tmp_path, "text"))
    metas = [attributes for tag, attributes in parsed.elements if tag == "meta"]
    (policy,) = [meta["content"] for meta in metas if meta.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(part.split(" ", 1) for part in policy.split("; ") if " " in part)

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    data, program = parsed.all("script")
    assert allowed["script-src"] == hashed(program) and allowed["style-src"] == hashed(parsed.all("style")[0])
    assert allowed["default-src"] == "'none'" and json.loads(data)
    asked = [value for _, found in parsed.elements for name, value in found.items() if name in ("src", "href", "style")]
    assert asked == [] and not any(name.startswith("on") for _, found in parsed.elements for name in found)


@pytest.mark.parametrize("space", [TWO_STACKS, ONE_STACK], ids=["two", "one"])
def test_paths_are_numbered_by_frequency(tmp_path: Path, space: DecisionSpace) -> None:
    report = json.loads(make_report(tmp_path, [4, 5, 6, 7], space).read_text())
    entries = report["per_input"]
    for entry in entries[2:]:
        entry |= {name: entries[1][name] for name in ("attention_keep", "ffn_keep", "cross_attention_keep")}
        entry["token_strategy"] = entries[1]["token_strategy"]
    page = build_page(report, [input_view(entry) for entry in entries], "title")
    data = json.loads(Parsed(page).all("script")[0])
    assert [entry["path"] for entry in data["inputs"]] == [2, 1, 1, 1]
    assert [path["inputs"] for path in data["paths"]] == [3, 1]
    assert data["paths"][0]["stacks"] == input_view(entries[1])["path"]["stacks"]


def test_facts_and_notes_are_on_the_page_without_javascript(tmp_path: Path) -> None:
    parsed = Parsed(page_of(tmp_path, "text"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert f"{report['cost']:.1%} of keep-all FLOPs" in parsed.all("dd")
    assert any("a <note>" in text for text in parsed.all("p"))
    assert any("decisions random, seed 1, beam 2" in text for text in parsed.all("p"))
    labels = [attributes for tag, attributes in parsed.elements if tag == "svg"]
    assert len(labels) == 3 and all(label["role"] == "img" and label["aria-label"] for label in labels)
