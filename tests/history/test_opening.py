"""From the address in the settings to a store."""

from pathlib import Path

import anyio
import pytest

from holistic_asgi_monitor.history.opening import default_path, spare_store, to_store
from holistic_asgi_monitor.model import ConfigurationError, MissingExtraError
from holistic_asgi_monitor.settings import Settings


def described(url, **environ):
    return to_store(Settings(service="shop", history_url=url), environ).describe()


def test_by_default_it_is_a_file_of_the_service_in_the_state_directory(tmp_path):
    place = described(None, XDG_STATE_HOME=str(tmp_path))

    assert place == f"in {tmp_path}/holistic-asgi-monitor/shop.sqlite"


@pytest.mark.parametrize("named", ["", "relative/folder"])
def test_without_a_state_directory_it_is_below_the_home(named, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    found = default_path("shop", {"XDG_STATE_HOME": named})

    assert found == tmp_path / ".local/state/holistic-asgi-monitor/shop.sqlite"


def test_without_a_home_it_is_in_memory(monkeypatch):
    monkeypatch.setenv("HOME", "nowhere")

    assert described(None) == "in memory only, and ends with the process"


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("shop", "shop"),
        ("my shop/eu", "my-shop-eu"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "app"),
        ("läden", "l-den"),
        ("shop.v2_x-1", "shop.v2_x-1"),
    ],
)
def test_the_file_is_named_after_the_service_and_stays_in_its_folder(service, name, tmp_path):
    found = default_path(service, {"XDG_STATE_HOME": str(tmp_path)})

    assert found == tmp_path / "holistic-asgi-monitor" / f"{name}.sqlite"


def test_a_long_name_of_a_service_makes_a_short_name_of_a_file_for_it_alone(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    first, second = (default_path("a" * 400 + end, environ) for end in ("x", "y"))

    assert first is not None
    assert second is not None
    assert first.name != second.name
    assert len(first.name) < 120
    assert default_path("b" * 100, environ) == first.with_name(f"{'b' * 100}.sqlite")


def test_four_slashes_name_a_file_and_three_one_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert described("sqlite:////var/lib/shop.sqlite") == "in /var/lib/shop.sqlite"
    assert described("sqlite:///data/shop.sqlite") == f"in {tmp_path}/data/shop.sqlite"
    assert described(f"SQLite:///{tmp_path}/a%20b.db") == f"in {tmp_path}/a b.db"


@pytest.mark.parametrize("url", ["memory:", "memory", "Memory:", "sqlite:///:memory:", "sqlite://"])
def test_it_may_be_in_memory(url):
    assert described(url) == "in memory only, and ends with the process"


@pytest.mark.parametrize("url", ["off", "OFF"])
def test_it_may_be_off(url):
    store = to_store(Settings(history_url=url))

    assert not store.writable
    assert store.describe() == "nowhere: MONITOR_HISTORY_URL is off"


@pytest.mark.parametrize("url", ["sqlite:/shop.db", "sqlite:shop.db", "sqlite:///shop.db?mode=ro"])
def test_what_is_no_file_is_refused_in_one_sentence(url):
    with pytest.raises(ConfigurationError, match=r"^MONITOR_HISTORY_URL .* begins with sqlite:,"):
        to_store(Settings(history_url=url))


def test_postgresql_is_described_without_its_password():
    place = described("postgresql+asyncpg://shop:S3cret@db:6000/orders")

    assert place == "in PostgreSQL at db:6000/orders, schema holistic_monitor"


@pytest.mark.parametrize("end", ["h:abc/db", "h:99999/db", "h/db?sslmode=bogus"])
def test_a_fault_in_the_address_of_postgresql_is_told_at_construction(end):
    with pytest.raises(ConfigurationError, match=r"^MONITOR_HISTORY_URL .* its .* must be") as said:
        to_store(Settings(history_url=f"postgresql://u:S3cret@{end}"))

    assert "S3cret" not in str(said.value)


def test_without_the_extra_postgresql_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "asyncpg", None)

    with pytest.raises(MissingExtraError, match=r"holistic-asgi-monitor\[postgres\]"):
        to_store(Settings(history_url="postgresql://db/shop"))


def test_what_takes_the_place_of_a_file_is_bounded():
    store = spare_store(Settings(history_max_mb=100_000))

    assert store._cap == 64 << 20  # type: ignore[attr-defined]  # it is SQLite in memory


def test_opening_the_default_makes_its_folders(tmp_path):
    store = to_store(Settings(service="shop"), {"XDG_STATE_HOME": str(tmp_path)})

    async def live():
        await store.open()
        await store.close()

    anyio.run(live)
    assert Path(tmp_path, "holistic-asgi-monitor", "shop.sqlite").is_file()
