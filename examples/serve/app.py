"""The web part: limits, time-outs and errors around a `Backend`."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fairseq_switchdec.predict.summarizer import Refused, TextRequest

from .backend import Answer, Backend, Failed, Unavailable
from .body import Limits, Refusal, parse
from .metrics import Metrics
from .page import HEADERS, build_page

logger = logging.getLogger(__name__)

#: A body that is too large is read on, to nowhere, up to so many times the limit: clients read answers after sending.
READ_ON = 20
#: The status, in the metrics, of a request whose client went away.
GONE = 499


class Service:
    """Answers requests.

    Attributes:
        waiting: texts that wait or run.
        pace: seconds that the last request took.
    """

    def __init__(self, backend: Backend, limits: Limits):
        self.backend, self.limits, self.metrics = backend, limits, Metrics()
        self.waiting = 0
        self.pace = 1.0

    async def __call__(self, request: Request) -> Response:
        """``POST /v1/summarize``."""
        start = time.perf_counter()
        try:
            content, status, headers = await self.answer(request, start), 200, {}
        except Refusal as refusal:
            content, status, headers = {"error": str(refusal)}, refusal.status, {}
            if refusal.retry_after is not None:
                headers["Retry-After"] = str(refusal.retry_after)
            if status in (408, 413):  # the rest of the body is not read
                headers["Connection"] = "close"
        except Exception:
            logger.exception("a request failed")
            content, status, headers = {"error": "the service failed; its log has the reason"}, 500, {}
        self.metrics.requests.labels(status).inc()
        self.metrics.seconds.observe(time.perf_counter() - start)
        return JSONResponse(content, status, headers)

    async def answer(self, request: Request, start: float) -> dict[str, Any]:
        """The content of a 200.

        Raises:
            Refusal: for any other status.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "send JSON, with the header Content-Type: application/json")
        try:
            body = await asyncio.wait_for(self.body(request), self.limits.seconds)
        except asyncio.TimeoutError:
            raise Refusal(408, f"the body did not arrive within {self.limits.seconds:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(GONE, "the client went away") from None
        requests, several = parse(body, self.limits)
        if self.waiting + len(requests) > self.limits.queue:
            raise Refusal(429, f"{self.waiting} texts are waiting: try again later", max(1, math.ceil(self.pace)))
        self.wait(len(requests))
        try:
            answers = await self.answers(request, requests)
        finally:
            self.wait(-len(requests))
        for place, answer in enumerate(answers):
            if isinstance(answer.result, Refused):
                raise Refusal(400, f"{f'texts[{place}]' if several else 'text'}: {answer.result.reason}")
        self.pace = time.perf_counter() - start
        return {"results": [self.result(answer) for answer in answers], "seconds": round(self.pace, 4)}

    async def body(self, request: Request) -> bytes:
        """The body of a request, of which no more than the limit is kept."""
        limit, length = self.limits.body, request.headers.get("content-length", "0")
        found, size = bytearray(), int(length) if length.isdecimal() else 0
        if size <= READ_ON * limit:
            size = 0
            async for part in request.stream():
                size += len(part)
                if size > READ_ON * limit:
                    break
                if size <= limit:
                    found += part
        if size > limit:
            raise Refusal(413, f"the body is larger than {limit} bytes: send fewer or shorter texts")
        return bytes(found)

    async def answers(self, request: Request, requests: list[TextRequest]) -> list[Answer]:
        """The backend's, unless the client goes away or too much time passes: then nobody works on it any more."""
        tasks = [asyncio.create_task(self.backend.summarize(one)) for one in requests]
        work, gone = asyncio.gather(*tasks), asyncio.create_task(disconnected(request))
        try:
            done, _ = await asyncio.wait({work, gone}, timeout=self.limits.seconds, return_when="FIRST_COMPLETED")
            if work in done:
                return work.result()
        except Failed as failure:
            raise Refusal(500, str(failure)) from None
        except Unavailable as error:
            raise Refusal(503, str(error), 5) from None
        finally:
            for task in (*tasks, work, gone):
                task.cancel()
            await asyncio.gather(*tasks, work, gone, return_exceptions=True)
        if gone in done:
            raise Refusal(GONE, "the client went away")
        if not await self.backend.ready():
            raise Refusal(503, "no replica is ready: try again later", 5)
        raise Refusal(
            504, f"no answer within {self.limits.seconds:g} seconds: send fewer or shorter texts, or try again later"
        )

    def wait(self, texts: int) -> None:
        """Count texts in, or out."""
        self.waiting += texts
        self.metrics.queue.set(self.waiting)

    def result(self, answer: Answer) -> dict[str, Any]:
        """What a client gets for a text."""
        self.metrics.texts.inc()
        self.metrics.batch.observe(answer.batch)
        self.metrics.cost.observe(answer.result.ran["cost"])
        result = answer.result
        return {"text": result.text, "score": round(result.score, 6), **result.ran, **result.explained}


async def disconnected(request: Request) -> None:
    """Until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def build_app(backend: Backend, limits: Limits) -> FastAPI:
    """The service's paths."""
    app = FastAPI(title="fairseq_switchdec", openapi_url=None)
    service = Service(backend, limits)
    app.state.service = service
    app.add_route("/v1/summarize", service.__call__, methods=["POST"])
    page = build_page(limits)

    @app.get("/")
    async def root() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        ready = await backend.ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def wrong_path(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}; POST to /v1/summarize"
        return JSONResponse({"error": message}, error.status_code, error.headers)

    return app
