"""A service that writes from texts: POST /v1/summarize, GET /healthz, GET /metrics, and a page at / to try it.

    clients -> limits, time-outs -> queue -+-> replica: texts of equal options in a batch -> model
               (this process)              +-> replica ...    (processes of Ray Serve)

Each request may name its budget or its decisions, and says what its texts skipped and cost. README.md beside this file
has the fields.
"""

from __future__ import annotations

import argparse
import sys

from fairseq_switchdec.errors import UserError

from ..common.command_line import command_line
from .options import add_options, check_options, limits_of

PACKAGES = "this needs Ray Serve and its web packages: pip install 'fairseq_switchdec[serve]'"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = command_line(__doc__, __spec__.name)
    add_options(parser)
    args = parser.parse_args(argv)
    check_options(args)
    return args


def main() -> None:
    """Serve until a signal comes."""
    args = parse_args()
    try:
        from .app import build_app
        from .cluster import Cluster
        from .connections import address_of, bind, interruptible, server
    except ImportError as error:
        raise UserError(f"{error.name} is missing: {PACKAGES}") from None
    listener = bind(args.host, args.port)
    print(f"starting {args.replicas} replicas of {args.path}", file=sys.stderr, flush=True)
    with Cluster(args) as cluster:
        interruptible()  # Ray has handlers of its own
        listener.listen()  # who reads the next line connects before the server accepts
        print(f"ready: {address_of(listener)}/v1/summarize", flush=True)
        print(f"a page to try it: {address_of(listener)}/", file=sys.stderr)
        server(build_app(cluster, limits_of(args))).run(sockets=[listener])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("serve: stopped", file=sys.stderr)
