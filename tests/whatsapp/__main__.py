"""Run the server by itself: ``python -m tests.whatsapp --dir DIR``.

Prints one line of JSON once everything listens, and ends on SIGTERM or SIGINT.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import uvloop

from tests.whatsapp.connection import Connection
from tests.whatsapp.server import running
from tests.whatsapp.stanza import Stanza


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.whatsapp")
    parser.add_argument("--dir", type=Path, required=True, help="for certificates; made anew")
    parser.add_argument("--proxy-port", type=int, default=0)
    parser.add_argument("--admin-port", type=int, default=0)
    parser.add_argument("--trace", action="store_true", help="every stanza, to standard error")
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    uvloop.run(_serve(given))


async def _serve(given: argparse.Namespace) -> None:
    ended = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, ended.set)
    given.dir.mkdir(parents=True, exist_ok=True)
    async with running(
        given.dir,
        proxy_port=given.proxy_port,
        admin_port=given.admin_port,
        traced=_trace if given.trace else None,
    ) as addresses:
        ready = {
            "proxy": addresses.proxy,
            "admin": addresses.admin,
            "tls": addresses.tls,
            "ca": str(addresses.authority),
            "noiseRootHex": addresses.noise_root.hex(),
            "ws": f"wss://127.0.0.1:{addresses.tls}/ws/chat",
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await ended.wait()


def _trace(connection: Connection, direction: str, stanza: Stanza) -> None:
    sys.stderr.write(f"{direction} {connection} {stanza}\n")


main()
