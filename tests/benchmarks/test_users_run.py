"""The benchmark of users runs, and counts exactly, in small."""

import pytest
from blockbuster import BlockBuster

from benchmarks import users
from benchmarks.table import DOCS, markdown


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let asyncpg look for certificates in the user's home, as it does whenever it connects."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


@pytest.mark.timeout(120)
def test_users_are_counted_exactly_in_both_stores(capsys, postgres):
    url = postgres.url(database=postgres.new_database())
    users.main(["--users", "400", "--days", "33", "--flushes", "8", "--postgres", url])
    *_, sqlite, server = capsys.readouterr().out.splitlines()

    for line, name in ((sqlite, "SQLite"), (server, "PostgreSQL")):
        store, size, different, *_ = [cell.strip() for cell in line.strip("|").split("|")]
        assert (store, size) == (name, "400 x 33")
        day, week, month = (int(count.replace(",", "")) for count in different.split(", "))
        assert 400 <= day < week < month <= 400 + 33 * 40


def test_a_wrong_count_ends_the_benchmark():
    with pytest.raises(SystemExit, match="counted 1, and there were 2"):
        users._demand(1, 2)


def test_the_table_is_in_the_documentation():
    page = DOCS.read_text("utf-8")

    assert "<!-- users: begin -->" in page
    assert markdown(users.HEAD, []) in page
