"""``python -m fairseq_switchdec ...`` from a process that has imported torch and fairseq already.

Importing them takes seconds, most of what a command on tiny models takes. Each command still has a process of its own,
forked from a server that has imported these two, what an optimizer imports and what ROUGE is counted by, and run
nothing: what it prints, its exit status and the interpreter's end are those of a real start. This file is the server
too; `run_module` starts it and asks it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
#: One thread: tiny tensors, and a process with threads of its own does not fork well.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
_server: subprocess.Popen | None = None


def run_module(*arguments: Any, timeout: float = 900) -> subprocess.CompletedProcess:
    """Run ``python -m fairseq_switchdec ARGUMENTS`` in the repository; stdout and stderr together.

    Raises:
        subprocess.TimeoutExpired: the command took longer than ``timeout`` seconds, and was killed.
    """
    words = [sys.executable, "-m", "fairseq_switchdec", *map(str, arguments)]
    with tempfile.NamedTemporaryFile() as output:
        status = ask(words[3:], output.name, timeout)
        text = Path(output.name).read_text(errors="replace")
    if status is None:
        raise subprocess.TimeoutExpired(words, timeout, text)
    return subprocess.CompletedProcess(words, status, text)


def run_in_repository(arguments: list[str], timeout: float = 900) -> subprocess.CompletedProcess:
    """Run any command as `run_module` runs ours."""
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.run(arguments, cwd=REPO, env=environment, text=True, timeout=timeout, **streams)


def ask(words: list[str], output: str, timeout: float) -> int | None:
    """A command's exit status, or None where its time was over."""
    global _server
    if _server is None or _server.poll() is not None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        _server = subprocess.Popen(
            [sys.executable, __file__], cwd=REPO, env={**os.environ, **ENVIRONMENT}, start_new_session=True, **pipes
        )
        atexit.register(stop, _server)
    server = _server
    server.stdin.write(json.dumps([words, output]).encode() + b"\n")
    server.stdin.flush()
    if not select.select([server.stdout], [], [], timeout)[0]:
        stop(server)
        return None
    answer = server.stdout.readline()
    if not answer:
        raise RuntimeError(f"the server of {__file__} has ended")
    return int(answer)


def stop(server: subprocess.Popen) -> None:
    """End a server and the command it runs."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def serve() -> tuple[list[str], str]:
    """Fork for every request and answer with its exit status; returns, in each fork, its request."""
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing that imports print is an answer
    from fairseq_switchdec.compat import install

    install()
    import fairseq  # noqa: F401  (and torch)

    with contextlib.suppress(ImportError):
        import torch._dynamo  # noqa: F401  (which an optimizer imports, since torch 2.1)
    with contextlib.suppress(ImportError):
        import rouge_score.rouge_scorer  # noqa: F401  (with nltk: seconds for every validation)

    gc.freeze()  # a fork's end would look through all that is imported and copy its pages, for seconds
    for line in sys.stdin:
        words, output = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(answers)
            return words, output
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.exit()


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, which `python -m` does not search
    WORDS, OUTPUT = serve()
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, OUTPUT, os.O_WRONLY | os.O_APPEND)):
        os.dup2(os.open(path, flags), descriptor)
    os.dup2(1, 2)
    sys.argv[1:] = WORDS
    runpy.run_module("fairseq_switchdec", run_name="__main__", alter_sys=True)
