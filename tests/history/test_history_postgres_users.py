"""Users in PostgreSQL: what every store knows of them, first versions, and many replicas."""

import anyio
import pytest

from holistic_asgi_monitor.history.postgres import PostgreSQL
from holistic_asgi_monitor.history.postgres import users as in_postgres
from holistic_asgi_monitor.history.postgres.schema import MIGRATIONS, SCHEMA, VERSION
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import UsersSeen
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from tests.history.postgres_stores import Stores
from tests.history.samples import MIDNIGHT, NOON, batch
from tests.history.users_contract import *  # noqa: F403 - every test of it is one of this module
from tests.history.users_contract import DAY_MINUTES, TODAY, seen, since


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def stores(postgres, anyio_backend):
    made = Stores(postgres)
    yield made
    await made.close()


@pytest.fixture
async def store(stores):
    opened = stores.make()
    await opened.open()
    return opened


async def test_a_database_of_the_first_version_is_brought_up_to_date(stores):
    rows = f"""INSERT INTO {SCHEMA}.users VALUES ('', {TODAY - 1}, '', 'a'), ('', {TODAY}, '', 'a'),
      ('', {TODAY - 9}, '', 'b'), ('', {TODAY - 9}, 'search', 'a'), ('other', {TODAY}, '', 'c')"""
    for statement in (
        f"CREATE SCHEMA {SCHEMA}",
        *MIGRATIONS[0],
        f"INSERT INTO {SCHEMA}.meta VALUES ('version', 1)",
        rows,
    ):
        stores.query(statement)
    replicas = [stores.make() for _ in range(4)]

    async with anyio.create_task_group() as group:
        for replica in replicas:
            group.start_soon(replica.open)
    store, *_ = replicas
    await store.write(batch(users=[seen("a", feature="search")]))

    found = await store.users_since([*since(1, 30), TODAY * DAY_MINUTES + DAY_MINUTES - 1])
    assert found == {"": (1, 2, 1), "search": (1, 1, 0)}
    assert await store.users_by_day(TODAY - 9, TODAY + 1) == {
        TODAY - 9: 1,
        TODAY - 1: 1,
        TODAY: 1,
    }
    assert stores.query(f"SELECT value FROM {SCHEMA}.meta WHERE key = 'version'") == [(VERSION,)]


async def test_one_day_of_each_service_goes_at_a_time(stores):
    """After a pause of upkeep, all of it at once could take longer than any answer may."""
    one = stores.make()
    other = PostgreSQL(stores.server.url(database=stores.database), service="other")
    for store in (one, other):
        await store.open()
        for day in range(3):
            hashes = frozenset({b"a", bytes([day])})
            users = [UsersSeen(TODAY + day, "", hashes, (TODAY + day) * DAY_MINUTES)]
            await store.write(batch(number=day, run=store._service or "run", users=users))

    left = []
    for _ in range(4):
        await one._write(lambda line: in_postgres.drop_user_days(line, TODAY + 2))
        left.append([await store.users_since([0]) for store in (one, other)])

    counts = [{"": (3,)}, {"": (2,)}, {"": (2,)}, {"": (2,)}]
    assert left == [[count] * 2 for count in counts]
    for store in (one, other):
        known = await store.users_by_day(TODAY, TODAY + 3)
        assert known == {TODAY: 2, TODAY + 1: 2, TODAY + 2: 2}
    await other.close()
    assert stores.query(f"SELECT DISTINCT day FROM {SCHEMA}.users") == [(TODAY + 2,)]


async def test_four_replicas_count_each_user_once(stores):
    """Each sees others, and some of the same; they start together, without a key set."""
    wall = [float(NOON)]

    def replica(number):
        return Recorder(
            stores.make(),
            requests=RequestSeries(Bounds((0.1,)), max_endpoints=10),
            instance=f"web-{number}",
            flush_seconds=60,
            spare=stores.make,
            clock=lambda: wall[0] - MIDNIGHT,
            wall=lambda: wall[0],
        )

    replicas = [replica(number) for number in range(4)]

    async def together(work):
        async with anyio.create_task_group() as group:
            for number, each in enumerate(replicas):
                group.start_soon(work, number, each)

    async def live(number, recorder):
        await recorder.step()
        for user in range(60):
            recorder.ledger.note_user(f"{user + 20 * number:016}".encode())
            recorder.ledger.note_user(f"{user:016}".encode(), "search")

    async def step(_, recorder):
        await recorder.step()

    await together(live)
    wall[0] += 60
    await together(step)
    minutes = [int(wall[0] // 60) - 1440, int(wall[0] // 60)]
    answers = [await each.users_since(minutes) for each in replicas]
    for each in replicas:
        each.ledger.note_user(f"{7:016}".encode())
        each.ledger.note_user(f"{777:016}".encode())
    unwritten = [await each.users_since(minutes) for each in replicas]
    for each in replicas:
        await each.close()

    assert answers == [{"": (120, 0), "search": (60, 0)}] * 4
    assert unwritten == [{"": (121, 2), "search": (60, 0)}] * 4
    assert stores.query(f"SELECT count(*) FROM {SCHEMA}.state") == [(1,)]
