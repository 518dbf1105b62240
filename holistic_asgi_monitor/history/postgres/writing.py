"""What is written into the database, each call one transaction."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.history.postgres.schema import SCHEMA
from holistic_asgi_monitor.history.store import Batch, Event
from holistic_asgi_monitor.history.tiers import FINEST, WINDOW
from holistic_asgi_monitor.history.values import Series, key_of, labels_text, plain

if TYPE_CHECKING:
    import asyncpg

__all__ = ("add_event", "claim", "put_state", "write")


async def write(
    connection: asyncpg.Connection[Any],
    service: str,
    batch: Batch,
    known: dict[Series, int],
    now: float,
) -> bool:
    """Write a batch; whether it was new. `known` are the numbers of the series, and is added to.

    Replicas insert in the same order, so that none waits for another in a circle.
    """
    await _learn(connection, service, batch, known)
    points = sorted(_points(batch, known))
    async with connection.transaction():
        number = await _begun(connection, batch, now)
        if number is None:
            return False
        await connection.copy_records_to_table(
            f"points_{FINEST.step}",
            schema_name=SCHEMA,
            records=[(series, time, number, *rest) for series, time, *rest in points],
        )
        await connection.execute(
            f"INSERT INTO {SCHEMA}.due SELECT unnest($1::bigint[]), $2",
            sorted({time // WINDOW * WINDOW for _, time, *_ in points}),
            number,
        )
        await _write_users(connection, service, batch)
    return True


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


def _points(batch: Batch, known: dict[Series, int]) -> list[tuple[Any, ...]]:
    return [
        (known[row.series], row.time, it.count, it.errors, it.total, it.peak, it.body)
        for row in batch.rows
        for it in (row.packed,)
    ]


async def _learn(
    connection: asyncpg.Connection[Any], service: str, batch: Batch, known: dict[Series, int]
) -> None:
    """Give numbers to the series that have none yet."""
    wanted = {
        _digest(service, row.series): row.series for row in batch.rows if row.series not in known
    }
    if not wanted:
        return
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
    known.update((wanted[digest], number) for digest, number in found)


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


async def _write_users(connection: asyncpg.Connection[Any], service: str, batch: Batch) -> None:
    rows = sorted(
        {(seen.day, key_of(seen.feature), user) for seen in batch.users for user in seen.hashes}
    )
    if rows:
        days, features, users = zip(*rows, strict=True)
        await connection.execute(
            f"INSERT INTO {SCHEMA}.users "  # noqa: S608 - our name
            "SELECT $4, * FROM unnest($1::int[], $2::text[], $3::bytea[]) ON CONFLICT DO NOTHING",
            days,
            features,
            users,
            service,
        )
