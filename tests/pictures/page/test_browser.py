"""The page in Chromium: it keeps its own policy, shows hostile texts as text, sorts, finds, and obeys the keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser import Page, browser
from page_support import make_report

from fairseq_switchdec.pictures.page.document import build_page
from fairseq_switchdec.pictures.page.view import Source, input_view

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u202eabc\0\ud800 ]]>"
INPUTS = 3000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """3,000 inputs of 4 to 103 tokens; number 7 is hostile, 8 and 9 are long."""
    folder = tmp_path_factory.mktemp("page")
    content = [4 + index % 100 for index in range(INPUTS)]
    content[8] = 15_000
    strategies = [index % 7 for index in range(INPUTS)]
    strategies[8] = 6
    report = json.loads(make_report(folder, content, strategies=strategies).read_text())
    views = []
    for index, entry in enumerate(report["per_input"]):
        words = [f"w{index}"] * content[index] if index != 8 else ["abc"] * content[index]
        hostile = HOSTILE if index == 7 else None
        source = Source(hostile) if hostile else Source(" ".join(words), words)
        views.append(
            input_view(entry, source, "x" * 1_000_000 if index == 9 else hostile or f"output {index}", "reference")
        )
    (folder / "page.html").write_text(build_page(report, views, "A <run>"), encoding="utf-8")
    with browser(folder / "browser") as opened:
        opened.open(f"{(folder / 'page.html').as_uri()}#7")
        yield opened


def test_hostile_text_is_text(page: Page) -> None:
    assert page.problems == []  # no policy was broken, nothing was asked for
    detail = page.run("document.getElementById('detail').innerText")
    assert "Input 7" in detail and "</script><img src=x onerror=alert(1)><!-- U+202EabcU+0000U+D800 ]]>" in detail
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.querySelector('h1').textContent") == "A <run>"


def test_only_rows_in_sight_are_elements(page: Page) -> None:
    page.run("showOnly({})")
    for top in (0, 20_000, 84_000 - 500):
        rows = page.run(
            f"document.getElementById('rows').scrollTop = {top}; list.draw(); "
            "[...document.querySelectorAll('#rows .row')].map((row) => Number(row.dataset.place))"
        )
        assert top // 28 + 1 in rows and len(rows) < 60
    assert page.run("document.getElementById('list').getAttribute('aria-rowcount')") == str(INPUTS + 1)


@pytest.mark.parametrize("title, name", [("cost", "cost"), ("source", "source_tokens"), ("path", "path")])
def test_sorting(page: Page, title: str, name: str) -> None:
    click = (
        f"[...document.querySelectorAll('#columns button')].find((b) => b.textContent.startsWith('{title}')).click()"
    )
    for order, state in ((1, "ascending"), (-1, "descending")):
        page.run(click)
        values = page.run(f"list.items.map((input) => input.{name})")
        assert len(values) == INPUTS and values == sorted(values, reverse=order < 0)
        assert page.run("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == state


@pytest.mark.parametrize("fields, expected", [
    ({"words": "OUTPUT 29"}, [index for index in range(INPUTS) if str(index).startswith("29")]),
    ({"source-from": 100, "source-to": 101}, [index for index in range(INPUTS) if 4 + index % 100 in (99, 100)]),
    ({"words": "no such text"}, []),
], ids=lambda value: "+".join(value) if isinstance(value, dict) else "")  # fmt: skip
def test_finding(page: Page, fields: dict[str, Any], expected: list[int]) -> None:
    found = page.run(f"showOnly({json.dumps(fields)}); list.items.map((input) => input.id).sort((a, b) => a - b)")
    assert found == expected
    said = page.run("document.getElementById('count').value")
    assert said == f"{len(expected)} of 3,000 inputs"


def test_a_chart_shows_its_inputs(page: Page) -> None:
    title = page.run(
        "(() => { const shape = document.querySelector('[data-path=\"1\"]'); "
        "shape.dispatchEvent(new MouseEvent('click', { bubbles: true })); return shape.textContent; })()"
    )
    found = page.run("list.items.map((input) => input.path)")
    assert set(found) == {1} and f"path 1: {len(found):,} input" in title


def test_the_keyboard_chooses(page: Page) -> None:
    page.run("showOnly({}); document.getElementById('list').focus(); list.choose(0)")
    ids = page.run("list.items.map((input) => input.id)")
    for key, code, place in (
        ("ArrowDown", 40, 1),
        ("End", 35, INPUTS - 1),
        ("ArrowUp", 38, INPUTS - 2),
        ("Home", 36, 0),
    ):
        page.press(key, code)
        active = "document.getElementById(document.getElementById('list').getAttribute('aria-activedescendant'))"
        assert page.run(f"{active}.getAttribute('aria-selected')") == "true"
        assert page.run(f"{active}.dataset.place") == str(place)
        assert page.run("document.querySelector('#detail h2').textContent") == f"Input {ids[place]}"
    page.press("/", 191)
    assert page.run("document.activeElement.id") == "words"
    page.press("Escape", 27)
    assert page.run("document.activeElement.id") == "list"


def test_a_long_text_is_shown_in_part_at_first(page: Page) -> None:
    page.run("showOnly({}); list.choose(list.items.findIndex((input) => input.id === 8))")
    shown = "document.querySelectorAll('#detail .text')[2]"
    assert page.run(f"{shown}.innerText").endswith("Show more: 39,999 characters are left")
    for _ in range(2):
        page.run("document.querySelector('#detail .text button').click()")
    assert page.run(f"{shown}.textContent") == " ".join(["abc"] * 15_000)
    assert 7_500 <= page.run(f"{shown}.querySelectorAll('del').length") <= 7_502


def test_a_megabyte_on_one_line_is_shown(page: Page) -> None:
    page.run("showOnly({}); list.choose(list.items.findIndex((input) => input.id === 9))")
    shown = page.run("document.querySelector('#detail .text').innerText")
    assert shown == "x" * 20_000 + "Show more: 980,000 characters are left"
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
