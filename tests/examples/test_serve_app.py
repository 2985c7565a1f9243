"""The service's web part with models that are none: answers, limits, time-outs, clients that go away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="pip install '.[serve]' for the service")
pytest.importorskip("httpx", reason="pip install httpx for FastAPI's test client")
testclient = pytest.importorskip("fastapi.testclient", reason="pip install '.[serve]' for the service")

from examples.serve.app import build_app  # noqa: E402
from examples.serve.backend import Answer, Failed, Unavailable  # noqa: E402
from examples.serve.body import Limits  # noqa: E402
from fairseq_switchdec.errors import UserError  # noqa: E402
from fairseq_switchdec.predict.summarizer import Refused, Summary, TextRequest  # noqa: E402

LIMITS = Limits(body=200, texts=4, queue=6, seconds=0.2)
PATH = "/v1/summarize"


class FakeModels:
    """Answers by what a text says."""

    def __init__(self) -> None:
        self.alive = True
        self.working: set[str] = set()

    async def summarize(self, request: TextRequest) -> Answer:
        word = request.text
        if word == "refuse":
            return Answer(Refused("the text is odd"), 1)
        if word in ("fail", "die", "crash"):
            raise {"fail": Failed("no numbers"), "die": Unavailable("all ended"), "crash": KeyError("bug")}[word]
        self.working.add(word)
        try:
            await asyncio.sleep(30 if word == "slow" else 0)
        finally:
            self.working.discard(word)
        return Answer(Summary(word.upper(), -1.23456789, {"cost": 0.6, "token_strategy": 2}), 3)

    async def ready(self) -> bool:
        return self.alive


@pytest.fixture
def models() -> FakeModels:
    return FakeModels()


@pytest.fixture
def client(models: FakeModels) -> Any:
    return testclient.TestClient(build_app(models, LIMITS), raise_server_exceptions=False)


def test_answers_and_what_is_counted(client: Any, models: FakeModels) -> None:
    found = client.post(PATH, json={"texts": ["a", "b"]})
    assert found.status_code == 200 and 0 <= found.json()["seconds"] < 5
    first, second = found.json()["results"]
    assert first == {"text": "A", "score": -1.234568, "cost": 0.6, "token_strategy": 2} and second["text"] == "B"
    assert client.post(PATH, json={"text": 1}).status_code == 400
    metrics = client.get("/metrics").text
    for line in (
        'switchdec_requests_total{status="200"} 1.0',
        'switchdec_requests_total{status="400"} 1.0',
        "switchdec_texts_total 2.0",
        'switchdec_batch_size_bucket{le="4.0"} 2.0',
        "switchdec_request_seconds_count 2.0",
        "switchdec_queue 0.0",
    ):
        assert line in metrics.splitlines()
    assert client.get("/healthz").status_code == 200
    models.alive = False
    assert client.get("/healthz").status_code == 503


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ({"texts": ["a", "refuse"]}, 400, "texts[1]: the text is odd"),
        ({"text": "refuse"}, 400, "text: the text is odd"),
        ({"text": "a" * 200}, 413, "the body is larger than 200 bytes: send fewer or shorter texts"),
        ({"text": "a" * 9000}, 413, "the body is larger than 200 bytes: send fewer or shorter texts"),
        ({"texts": ["a", "fail"]}, 500, "no numbers"),
        ({"texts": ["slow", "crash"]}, 500, "the service failed; its log has the reason"),
        ({"texts": ["slow", "die"]}, 503, "all ended"),
        ({"text": "slow"}, 504, "no answer within 0.2 seconds: send fewer or shorter texts, or try again later"),
    ],
)
def test_statuses(client: Any, models: FakeModels, content: Any, status: int, message: str) -> None:
    found = client.post(PATH, json=content)
    assert found.status_code == status
    assert found.json() == {"error": message}
    assert ("Retry-After" in found.headers) == (status == 503)
    assert not models.working, "nobody works on what was answered"
    assert client.app.state.service.waiting == 0


def test_no_replica_within_the_time(client: Any, models: FakeModels) -> None:
    models.alive = False
    found = client.post(PATH, json={"text": "slow"})
    assert found.status_code == 503 and found.headers["Retry-After"] == "5"
    assert found.json() == {"error": "no replica is ready: try again later"}


def test_other_paths_and_types_are_json_too(client: Any) -> None:
    found = client.post(PATH, content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert found.status_code == 415 and "Content-Type: application/json" in found.json()["error"]
    assert client.get(PATH).status_code == 405
    assert client.get("/nowhere").json() == {"error": "GET /nowhere: Not Found; POST to /v1/summarize"}


def asgi(app: Any, messages: list[Any]) -> Any:
    """A request of these messages, after which nothing comes; the status sent, or None."""
    sent: list[Any] = []
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "http_version": "1.1"}

    async def receive() -> Any:
        if not messages:
            await asyncio.sleep(30)
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> int:
        await app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)
        return sent[0]["status"]

    return run()


def test_a_full_queue_slow_bodies_and_clients_that_go_away(models: FakeModels) -> None:
    app = build_app(models, LIMITS)
    part = {"type": "http.request", "more_body": False}
    slow = {**part, "body": b'{"texts": ["slow", "slow", "slow", "slow"]}'}

    async def run() -> list[Any]:
        leaving: list[Any] = [slow]
        first = asyncio.create_task(asgi(app, leaving))
        await asyncio.sleep(0.02)
        full = await asgi(app, [{**part, "body": b'{"texts": ["a", "b", "c"]}'}])
        fits = await asgi(app, [{**part, "body": b'{"texts": ["a", "b"]}'}])
        gone = await asgi(app, [slow | {"body": b'{"text": "slow"}'}, {"type": "http.disconnect"}])
        unsent = await asgi(app, [{**part, "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
        late = await asgi(app, [{**part, "body": b"{", "more_body": True}])
        return [await first, full, fits, gone, unsent, late]

    assert asyncio.run(run()) == [504, 429, 200, 499, 499, 408]
    assert not models.working and app.state.service.waiting == 0


def test_who_reads_ready_can_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Before the server accepts, as late as that may be."""
    pytest.importorskip("uvicorn", reason="pip install '.[serve]' for the service")
    from examples.serve import __main__, connections

    def run(sockets: list[socket.socket]) -> None:
        assert f"ready: {connections.address_of(sockets[0])}{PATH}" in capsys.readouterr().out
        socket.create_connection(sockets[0].getsockname(), timeout=10).close()

    (tmp_path / "model.pt").touch()
    cluster = SimpleNamespace(Cluster=lambda args: contextlib.nullcontext(FakeModels()))
    monkeypatch.setitem(sys.modules, "examples.serve.cluster", cluster)
    monkeypatch.setattr(connections, "interruptible", lambda: None)
    monkeypatch.setattr(connections, "server", lambda app: SimpleNamespace(run=run))
    monkeypatch.setattr(sys, "argv", ["serve", "--path", str(tmp_path / "model.pt"), "--no-bpe", "--port", "0"])
    __main__.main()


def test_a_connection_without_a_request_is_closed(models: FakeModels, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="pip install '.[serve]' for the service")
    from examples.serve import connections

    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    listener = connections.bind("127.0.0.1", 0)
    host, port = listener.getsockname()
    server = connections.server(build_app(models, LIMITS))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        with pytest.raises(UserError, match=f"--host 127.0.0.1 --port {port}: Address already in use: choose another"):
            connections.bind(host, port)
        clients = [socket.create_connection((host, port), timeout=10) for _ in range(3)]
        clients[1].sendall(b"GET /heal")
        clients[2].sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert [client.recv(12) for client in clients] == [b"", b"", b"HTTP/1.1 200"]
        for client in clients:
            client.close()
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
