"""What is written into the database, each call one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.history.postgres.schema import NAMES_LOCK, SCHEMA, VERSION
from holistic_asgi_monitor.history.postgres.users import write_users
from holistic_asgi_monitor.history.store import Batch, Event, StoreError
from holistic_asgi_monitor.history.tiers import FINEST, WINDOW
from holistic_asgi_monitor.history.turns import taking_turns
from holistic_asgi_monitor.history.values import Row, Series, key_of, labels_text, plain

if TYPE_CHECKING:
    import asyncpg

__all__ = ("Known", "NewerError", "add_event", "claim", "put_state", "settle_state", "write")


class NewerError(StoreError):
    """A newer version has brought the tables up to date meanwhile."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the tables have format {version}, known is {VERSION}")
        self.version = version


@dataclass(slots=True)
class Known:
    """The numbers of series, as they were when names had been `forgotten` so many times."""

    numbers: dict[Series, int] = field(default_factory=dict)
    forgotten: int | None = None


async def write(
    connection: asyncpg.Connection[Any],
    service: str,
    batch: Batch,
    known: Known,
    now: float,
) -> int:
    """Write a batch, unless it is there; how many users were left out.

    `known` are the numbers of the series, and is added to. Replicas insert in the
    same order, so that none waits for another in a circle.
    """
    async with connection.transaction():
        # Until the end of it nobody forgets a name, nor brings the tables up to date.
        await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", NAMES_LOCK)
        numbers = await _numbers(connection, service, batch, known)
        number = await _begun(connection, batch, now)
        if number is None:
            return 0
        points = [
            _point(row, numbers[row.series], number) async for row in taking_turns(batch.rows)
        ]
        await connection.copy_records_to_table(
            f"points_{FINEST.step}", schema_name=SCHEMA, records=sorted(points)
        )
        await connection.execute(
            f"INSERT INTO {SCHEMA}.due SELECT unnest($1::bigint[]), $2",
            sorted({time // WINDOW * WINDOW for _, time, *_ in points}),
            number,
        )
        left_out = await write_users(connection, service, batch.users)
    known.numbers.update(numbers)
    return left_out


async def put_state(
    connection: asyncpg.Connection[Any], service: str, key: str, text: str, now: float
) -> None:
    """Keep a text under a key."""
    await connection.execute(
        f"INSERT INTO {SCHEMA}.state VALUES ($1, $2, $3, $4) "  # noqa: S608 - our name
        "ON CONFLICT (service, key) DO UPDATE SET text = excluded.text, written = excluded.written",
        service,
        key_of(key),
        plain(text),
        now,
    )


async def settle_state(
    connection: asyncpg.Connection[Any], service: str, key: str, text: str, now: float
) -> str:
    """Keep a text under a key unless there is one; the text that is kept."""
    place = service, key_of(key)
    await connection.execute(
        f"INSERT INTO {SCHEMA}.state VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",  # noqa: S608 - our name
        *place,
        plain(text),
        now,
    )
    kept = await connection.fetchval(
        f"SELECT text FROM {SCHEMA}.state WHERE service = $1 AND key = $2",  # noqa: S608 - our name
        *place,
    )
    return str(kept)


async def claim(connection: asyncpg.Connection[Any], service: str, key: str, now: float) -> bool:
    """Whether the key was still free."""
    inserted = await connection.fetchval(
        f"INSERT INTO {SCHEMA}.claims VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true",  # noqa: S608 - our name
        service,
        key_of(key),
        now,
    )
    return bool(inserted)


async def add_event(connection: asyncpg.Connection[Any], service: str, event: Event) -> None:
    """Add to the log, unless it is there."""
    await connection.execute(
        f"INSERT INTO {SCHEMA}.events VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",  # noqa: S608 - our name
        key_of(event.id),
        service,
        event.time,
        key_of(event.topic),
        plain(event.key),
        plain(event.text),
    )


def _point(row: Row, series: int, batch: int) -> tuple[Any, ...]:
    it = row.packed
    return series, row.time, batch, it.count, it.errors, it.total, it.peak, it.body


async def _numbers(
    connection: asyncpg.Connection[Any], service: str, batch: Batch, known: Known
) -> dict[Series, int]:
    """The numbers of a batch's series; those that are new are given one."""
    meta = dict(await connection.fetch(f"SELECT key, value FROM {SCHEMA}.meta"))  # noqa: S608 - our name
    if meta["version"] > VERSION:
        raise NewerError(meta["version"])
    times = meta.get("names forgotten")
    if known.forgotten != times:
        known.numbers.clear()
        known.forgotten = times
    numbers, new = dict[Series, int](), set[Series]()
    async for row in taking_turns(batch.rows):
        number = known.numbers.get(row.series)
        if number is None:
            new.add(row.series)
        else:
            numbers[row.series] = number
    return numbers | await _learnt(connection, service, new) if new else numbers


async def _learnt(
    connection: asyncpg.Connection[Any], service: str, new: Iterable[Series]
) -> dict[Series, int]:
    """The numbers that these series have or are given."""
    wanted = {_digest(service, series): series async for series in taking_turns(new)}
    digests = sorted(wanted)
    await connection.execute(
        f"INSERT INTO {SCHEMA}.series (service, digest, kind, labels) "  # noqa: S608 - our name
        "SELECT $4, * FROM unnest($1::bytea[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING",
        digests,
        [wanted[digest].kind.value for digest in digests],
        [labels_text(wanted[digest]) for digest in digests],
        service,
    )
    found = await connection.fetch(
        f"SELECT digest, id FROM {SCHEMA}.series WHERE digest = ANY($1::bytea[])",  # noqa: S608 - our name
        digests,
    )
    return {wanted[digest]: number for digest, number in found}


def _digest(service: str, series: Series) -> bytes:
    text = f"{series.kind.value} {labels_text(series)} {service}"
    return sha256(text.encode()).digest()


async def _begun(connection: asyncpg.Connection[Any], batch: Batch, now: float) -> int | None:
    """The number of a batch, None where it has been written before.

    Where an earlier attempt is still being committed, this waits for its end.
    """
    run = await connection.fetchval(
        f"INSERT INTO {SCHEMA}.runs (run, instance, written) VALUES ($1, $2, $3) "  # noqa: S608 - our name
        "ON CONFLICT (run) DO UPDATE SET written = excluded.written RETURNING id",
        batch.run,
        plain(batch.instance),
        int(now),
    )
    number: int | None = await connection.fetchval(
        f"INSERT INTO {SCHEMA}.batches (run, number, written) VALUES ($1, $2, $3) "  # noqa: S608 - our name
        "ON CONFLICT DO NOTHING RETURNING id",
        run,
        batch.number,
        int(now),
    )
    return number
