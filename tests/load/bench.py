"""``make bench``: accepting, credentials, latency, the pipeline, against ceilings of the same run.

Everything, this generator included, shares the machine's cores. Alternatives are interleaved round
by round and medians are taken, so a noisy neighbour hits all of them alike. Writes
``.waypost/bench.json``.
"""

import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from shared.db.migrate import upgrade
from tests.load import accepting, credentials, latency, listing, pipeline
from tests.load.report import Row, table
from tests.support import postgres as postgres_support
from tests.support import rabbitmq as rabbitmq_support

OUTPUT = Path(".waypost/bench.json")

Measure = Callable[[Path, str, str], Awaitable[list[Row]]]


def main() -> None:
    """Measure, print, and write it down."""
    rows: list[Row] = []
    with (
        postgres_support.running() as postgres,
        postgres.template(upgrade) as migrated,
        rabbitmq_support.running() as rabbit,
        tempfile.TemporaryDirectory() as folder,
    ):

        async def alone(measure: Measure) -> list[Row]:
            async with postgres.database(template=migrated) as database_url:
                return await measure(Path(folder), database_url, amqp_url)

        for measure in (
            accepting.measure,
            credentials.measure,
            latency.measure,
            pipeline.sent,
            pipeline.receipted,
            listing.measure,
        ):
            with rabbit.vhost() as amqp_url:
                rows += uvloop.run(alone(measure))
    print(table(rows))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    print(f"\nwritten to {OUTPUT}")


if __name__ == "__main__":
    main()
