"""The service's page in Chromium: what it sends, that a text's view is the run's page's, and what is said of errors."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from browser import Page, browser
from page_support import entries_of, make_report

for package in ("prometheus_client", "uvicorn", "fastapi"):
    pytest.importorskip(package, reason="pip install '.[serve]' for the service")

from examples.serve import connections  # noqa: E402
from examples.serve.app import build_app  # noqa: E402
from examples.serve.backend import Answer  # noqa: E402
from examples.serve.body import Limits  # noqa: E402
from fairseq_switchdec.pictures.page.document import build_page  # noqa: E402
from fairseq_switchdec.pictures.page.view import Source, input_view  # noqa: E402
from fairseq_switchdec.predict.summarizer import EXPLAINED, Refused, Summary, TextRequest  # noqa: E402

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u202eabc\0 ]]>"
WORDS = "one two three four five six".split()


class Models:
    """Write a text in capitals, say what a report's input ran, and keep what they were asked."""

    def __init__(self, entry: dict[str, Any]):
        self.view = input_view(entry, Source(" ".join(WORDS), WORDS))
        self.ran = {name: value for name, value in entry.items() if name != "id"}
        self.asked: list[TextRequest] = []

    async def summarize(self, request: TextRequest) -> Answer:
        self.asked.append(request)
        if request.text == "refuse":
            return Answer(Refused(f"no {HOSTILE}"), 1)
        await asyncio.sleep(30 if request.text == "slow" else 0)
        explained = {name: self.view[name] for name in EXPLAINED if request.explain}
        if request.text == HOSTILE:
            explained["source"] = [[0, HOSTILE], [1, HOSTILE]]
        return Answer(Summary(request.text.upper(), -1.0, self.ran, explained), 1)

    async def ready(self) -> bool:
        return True


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page, as it was opened in a browser, and the models behind it."""
    folder = tmp_path_factory.mktemp("serve_page")
    entry = entries_of(make_report(folder, [6], strategies=[6]))[0]
    models = Models(entry)
    listener = connections.bind("127.0.0.1", 0)
    server = connections.server(build_app(models, Limits(beam=4, characters=99, seconds=0.5)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    with browser(folder / "browser") as page:
        thread.start()
        try:
            while not server.started:
                thread.join(0.01)
                assert thread.is_alive()
            page.open(connections.address_of(listener))
            yield SimpleNamespace(page=page, models=models, entry=entry, folder=folder)
        finally:
            server.should_exit = True
            thread.join(20)


def ask(page: Page, text: str, **fields: str) -> str:
    """Fill the form and send it; what the page then says."""
    values = {"text": text, "decisions": "greedy", "budget": "", "beam": "", "max_len_b": ""} | fields
    filled = "; ".join(f"byId('{name}').value = {json.dumps(value)}" for name, value in values.items())
    page.run(f"{filled}; write()")
    said: str = page.run("byId('state').innerText")
    return said


def test_what_is_sent(served: SimpleNamespace) -> None:
    assert ask(served.page, "a b").startswith("written in 0.")
    assert served.models.asked[-1] == TextRequest("a b", explain=True)
    ask(served.page, "a", decisions="keep-all", beam="3", max_len_b="7", budget=" auto ")
    decoding = {"beam": 3, "max_len_b": 7}
    assert served.models.asked[-1] == TextRequest("a", decoding, "keep-all", "auto", True)
    ask(served.page, "a", budget="0.5")
    assert served.models.asked[-1].budget == 0.5


def test_a_text_is_shown_as_on_the_page_of_a_run(served: SimpleNamespace) -> None:
    ask(served.page, "one")
    shown = served.page.run("byId('detail').innerHTML")
    assert served.page.run("[...document.querySelectorAll('del')].map((one) => one.textContent)") == [
        "two",
        "four",
        "six",
    ]
    report = json.loads((served.folder / "report.json").read_text())
    view = input_view(served.entry, Source(" ".join(WORDS), WORDS), "ONE")
    (served.folder / "run.html").write_text(build_page(report, [view], "run"), encoding="utf-8")
    with browser(served.folder / "other") as page:
        page.open((served.folder / "run.html").as_uri())
        page.run("document.querySelector('#detail h2').remove(); document.querySelector('#detail h3 button').remove()")
        of_run = page.run("byId('detail').innerHTML")
    assert of_run.replace('<h3>Reference</h3><p class="text absent">not given</p>', "") == shown


def test_hostile_text_is_text(served: SimpleNamespace) -> None:
    page = served.page
    assert ask(page, HOSTILE).startswith("written")
    seen = HOSTILE.replace("\u202e", "U+202E").replace("\0", "U+0000")
    assert page.run("byId('detail').innerText").count(seen) == 2
    assert ask(page, "refuse") == f"text: no {seen}"
    assert page.run("document.querySelectorAll('img').length") == 0
    assert not [problem for problem in page.problems if "Failed to load resource" not in problem]


@pytest.mark.parametrize(
    ("text", "fields", "said"),
    [
        ("a", {"budget": "much"}, 'budget must be a number above 0 and at most 1, or "auto", or a list of these'),
        ("a", {"budget": "1e999"}, 'budget must be a number above 0 and at most 1, or "auto", or a list of these'),
        ("a", {"beam": "5"}, "beam must be a whole number from 1 to 4"),
        ("a" * 100, {}, "text has 100 characters, and the limit is 99: cut it"),
        ("slow", {}, "no answer within 0.5 seconds: send fewer or shorter texts, or try again later"),
    ],
)
def test_errors_are_said_and_nothing_old_is_shown(
    served: SimpleNamespace, text: str, fields: dict[str, str], said: str
) -> None:
    ask(served.page, "a")
    assert ask(served.page, text, **fields) == said
    assert served.page.run("byId('detail').innerText") == "" and not served.page.run("byId('send').disabled")


def test_a_service_that_has_gone_and_one_behind_a_proxy_that_fails(served: SimpleNamespace) -> None:
    page = served.page
    page.run("globalThis.fetched = fetch; fetch = async () => { throw new TypeError('Failed to fetch'); }")
    assert ask(page, "a") == "The service does not answer: is it still running?"
    for answer in ("<h1>Bad gateway</h1>", '{"detail": "x"}', "null", '{"error": {"code": 4}}', '{"results": []}'):
        page.run(f"fetch = async () => new Response({json.dumps(answer)}, {{ status: 502 }})")
        assert ask(page, "a") == "HTTP status 502, and no answer"
    page.run("fetch = fetched")
    assert ask(page, "a").startswith("written")


def test_control_and_enter_send(served: SimpleNamespace) -> None:
    page, before = served.page, len(served.models.asked)
    page.run("byId('text').value = 'keys'; byId('text').focus()")
    for kind in ("keyDown", "keyUp"):
        page("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, modifiers=2)
    look = "const look = () => (byId('detail').innerText ? done() : setTimeout(look, 10)); look();"
    page.run(f"new Promise((done) => {{ {look} }})")
    assert [request.text for request in served.models.asked[before:]] == ["keys"]


def test_nobody_else_can_frame_it(served: SimpleNamespace) -> None:
    headers = served.page.run("fetch('/').then((found) => [...found.headers])")
    assert dict(headers)["x-frame-options"] == "DENY" and dict(headers)["content-type"].startswith("text/html")
    policy = served.page.run("document.querySelector('meta[http-equiv]').content")
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
