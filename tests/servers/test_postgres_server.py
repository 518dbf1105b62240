"""The PostgreSQL servers of the tests: each starts, answers, and fails as told."""

import os
import threading
import time

import psutil
import psycopg
import pytest

from tests.servers.postgres import Postgres
from tests.servers.process import NOBODY


@pytest.fixture(params=["postgres", "postgres16"])
def server(request: pytest.FixtureRequest) -> Postgres:
    """Return each version in turn."""
    found: Postgres = request.getfixturevalue(request.param)
    return found


def test_each_fixture_is_the_version_it_is_named_after(
    postgres: Postgres, postgres16: Postgres
) -> None:
    versions = [server.query("SHOW server_version") for server in (postgres, postgres16)]
    assert [str(rows[0][0]).partition(".")[0] for rows in versions] == ["18", "16"]


def test_it_never_runs_as_root(postgres: Postgres) -> None:
    expected = os.geteuid() or NOBODY
    assert {psutil.Process(pid).uids().real for pid in postgres.pids} == {expected}


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill])
def test_it_comes_back_on_its_port_with_all_it_knew(server: Postgres, end) -> None:
    port, database = server.port, server.new_database()
    end(server)
    assert not server.running
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(server.url())
    server.start()
    assert server.port == port
    assert server.query("SELECT current_database()", database=database) == [(database,)]


def test_a_frozen_server_leaves_its_clients_waiting_until_it_thaws(server: Postgres) -> None:
    server.freeze()
    states = {psutil.Process(pid).status() for pid in server.pids}
    assert states == {psutil.STATUS_STOPPED}
    answers: list[object] = []
    client = threading.Thread(target=lambda: answers.append(server.query("SELECT 1")))
    client.start()
    client.join(0.2)
    assert answers == []
    server.thaw()
    client.join()
    assert answers == [[(1,)]]


@pytest.mark.parametrize("damage", [Postgres.freeze, Postgres.stop, Postgres.kill])
def test_it_is_healed_whatever_a_test_did(server: Postgres, damage) -> None:
    usual = server.query("SHOW max_connections")
    server.restart(max_connections="7")
    assert server.query("SHOW max_connections") == [("7",)]
    damage(server)
    server.heal()
    assert server.query("SHOW max_connections") == usual


def test_a_role_with_a_password_must_give_it(server: Postgres) -> None:
    server.add_role("o'hara", "p@ss/word %'")
    with psycopg.connect(server.url(user="o'hara", password="p@ss/word %'")) as connection:
        assert connection.execute("SELECT current_user").fetchall() == [("o'hara",)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url(user="o'hara", password="wrong"))
    assert server.query("SELECT current_user") == [("postgres",)]


def test_it_outlives_the_thread_that_started_it(postgres: Postgres) -> None:
    """Linux would end it with that thread, were it the parent."""
    thread = threading.Thread(target=postgres.restart)
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert postgres.query("SELECT 1") == [(1,)]


def test_a_server_that_cannot_start_says_why(postgres: Postgres) -> None:
    postgres.stop()
    with pytest.raises(RuntimeError, match=r"Postgres did not start:\n(?s:.)*no_such_setting"):
        postgres.start(no_such_setting="1")
