"""Who made a request, and which features he used in it: whoever says it, wherever, whenever."""

from __future__ import annotations

import uuid

import anyio
import anyio.to_thread
import pytest
from django.utils.functional import SimpleLazyObject
from sqlalchemy import String, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from holistic_asgi_monitor import (
    ConfigurationError,
    Monitor,
    Settings,
    set_user,
    track_feature,
    track_openai_call,
)
from holistic_asgi_monitor.usage.tracking import Current
from holistic_asgi_monitor.web.visitors import signed_in
from tests.web.exchanges import get, http_scope


def monitored(endpoint, *, middleware=(), history_url="memory:", **options):
    app = Starlette(routes=[Route("/{name}", endpoint)], middleware=middleware)
    settings = Settings(service="shop", history_url=history_url, access="open")
    return Monitor(app, settings=settings, checks=[], notifiers=[], **options)


async def crowd(monitor):
    """Users of the day, and by feature its uses and users."""
    found = await monitor._parts.business.audience.now()
    return found.users["day"], {each.name: (each.uses, each.users) for each in found.features}


def ok():
    return PlainTextResponse("ok")


async def user_first(request):
    set_user(request.path_params["name"])
    track_feature("export")
    return ok()


async def feature_first(request):
    track_feature("export")
    set_user(request.path_params["name"])
    return ok()


def in_a_worker_thread(request):
    track_feature("export")
    set_user(request.path_params["name"])
    return ok()


async def in_another_thread(request):
    await anyio.to_thread.run_sync(track_feature, "export")
    await anyio.to_thread.run_sync(set_user, request.path_params["name"])
    return ok()


async def in_child_tasks(request):
    async def use():
        track_feature("export")

    async with anyio.create_task_group() as group:
        group.start_soon(use)
    async with anyio.create_task_group() as group:
        group.start_soon(use)
        set_user(request.path_params["name"])
    return ok()


async def in_the_background(request):
    set_user(request.path_params["name"])
    return PlainTextResponse("ok", background=BackgroundTask(track_feature, "export"))


class PassingOn(BaseHTTPMiddleware):
    """Runs the endpoint in a task of its own."""

    async def dispatch(self, request, call_next):
        return await call_next(request)


@pytest.mark.parametrize(
    "endpoint",
    [
        *(user_first, feature_first, in_a_worker_thread, in_another_thread),
        *(in_child_tasks, in_the_background),
    ],
)
@pytest.mark.parametrize("middleware", [[], [Middleware(PassingOn)]], ids=["plain", "middleware"])
@pytest.mark.parametrize("history_url", ["memory:", "off"])
async def test_who_uses_a_feature_in_a_request_counts_for_it(endpoint, middleware, history_url):
    monitor = monitored(endpoint, middleware=middleware, history_url=history_url)
    track_openai_call("gpt", cost=0.1)  # from here on requests carry themselves
    Current.company.asked = Current.company.noting = True
    for name in ("ada", "bob", "ada"):
        await get(monitor, f"/{name}")

    users, features = await crowd(monitor)

    assert users == 2
    assert features == {"export": (6 if endpoint is in_child_tasks else 3, 2)}


def on_a_websocket(name, *steps):
    async def endpoint(websocket):
        await websocket.accept()
        for step in steps:
            step(name)
        await websocket.close()

    return endpoint


def use(name):
    track_feature("export")


@pytest.mark.parametrize("steps", [(set_user, use), (use, set_user)], ids=["user", "feature"])
def test_who_uses_a_feature_on_a_websocket_counts_for_it(steps, monkeypatch):
    """Also where nothing has asked for the request before."""
    monkeypatch.setattr(Current.company, "asked", False)
    monkeypatch.setattr(Current.company, "noting", Current.company.several)
    app = Starlette(routes=[WebSocketRoute("/", on_a_websocket("ada", *steps))])
    settings = Settings(service="shop", history_url="off", access="open")
    monitor = Monitor(app, settings=settings, checks=[], notifiers=[])
    with TestClient(monitor) as client:
        with client.websocket_connect("/"):
            pass
        stats = client.get("/api/monitoring/stats").json()

    assert stats["users"]["day"] == 1
    assert stats["features"] == [{"feature": "export", "uses": 1, "users": 1}]


async def test_the_user_who_is_found_after_the_app_counts_for_its_features():
    async def endpoint(request):
        await anyio.to_thread.run_sync(track_feature, request.path_params["name"])
        return ok()

    monitor = monitored(endpoint, user_id=lambda scope: scope["query_string"].decode())
    for path, user in (("/a", b"ada"), ("/a", b"bob"), ("/b", b"ada"), ("/b", b"")):
        await get(monitor, path, query_string=user)

    assert await crowd(monitor) == (2, {"a": (2, 2), "b": (2, 1)})


async def test_what_a_task_uses_after_its_request_counts_for_the_user_of_the_request():
    go, done = anyio.Event(), anyio.Event()

    async def later():
        await go.wait()
        track_feature("report")
        done.set()

    async def endpoint(request):
        set_user("ada")
        group.start_soon(later)
        return ok()

    monitor = monitored(endpoint)
    Current.company.asked = Current.company.noting = True
    async with anyio.create_task_group() as group:
        await get(monitor, "/a")
        await get(monitored(user_first), "/bob")
        go.set()
        await done.wait()

    assert await crowd(monitor) == (1, {"report": (1, 1)})


async def test_two_requests_at_once_are_kept_apart():
    together = anyio.Event()

    async def endpoint(request):
        name = request.path_params["name"]
        track_feature(f"of {name}")
        if name == "bob":
            together.set()
        await together.wait()
        set_user(name)
        return ok()

    monitor = monitored(endpoint)
    async with anyio.create_task_group() as group:
        for name in ("ada", "bob"):
            group.start_soon(get, monitor, f"/{name}")

    assert await crowd(monitor) == (2, {"of ada": (1, 1), "of bob": (1, 1)})


async def test_switched_off_nobody_is_remembered():
    app = Starlette(routes=[Route("/{name}", user_first)])
    monitor = Monitor(app, settings=Settings(service="shop", enabled=False))
    await get(monitor, "/ada")
    monitor.set_user("bob")

    assert (await crowd(monitor))[0] == 0


class Unbound:
    """A proxy of the application's that stands for nothing now."""

    def __getattr__(self, name):
        raise RuntimeError("outside of a context")


class Caller:
    def __call__(self):
        exchange = Unbound()
        set_user("ada")
        track_feature("export")
        return exchange


def test_what_a_caller_calls_exchange_is_not_taken_for_a_request(monkeypatch):
    monkeypatch.setattr(Current.company, "several", True)
    monitor = monitored(user_first)

    assert type(Caller()()) is Unbound
    assert monitor is not None


async def test_outside_of_a_request_a_user_has_no_features():
    monitor = monitored(user_first)
    monitor.set_user("ada")
    monitor.track_feature("export")
    monitor.set_user("bob")

    assert await crowd(monitor) == (2, {"export": (1, 0)})


@pytest.mark.parametrize("history_url", ["memory:", "off"])
async def test_names_of_features_are_bounded(history_url, caplog):
    monitor = monitored(user_first, history_url=history_url)
    for number in range(250):
        monitor.track_feature(f"feature {number}")

    families = monitor._parts.catalogue.feature_uses.values
    _, features = await crowd(monitor)

    assert len(families) == 201
    assert features["_overflow"] == (50, 0)
    assert len(features) == 200
    assert "has reached 200 series" in caplog.text


class Awaited:
    """An object that is called like a coroutine function."""

    async def __call__(self, scope):
        return "ada"


@pytest.mark.parametrize(
    ("user_id", "given"),
    [
        (Awaited().__call__, "a coroutine function"),
        (Awaited(), "a coroutine function"),
        ("ada", "a str"),
        (7, "a int"),
    ],
)
async def test_what_gives_no_id_is_no_user_id(user_id, given):
    with pytest.raises(
        ConfigurationError, match=f"user_id is given {given}; allowed is a function"
    ):
        monitored(user_first, user_id=user_id)


class Basic(AuthenticationBackend):
    """Everyone is who the first letters of the path say; nobody at /nobody."""

    async def authenticate(self, connection):
        name = connection.url.path.strip("/")
        if name == "nobody":
            return None
        return AuthCredentials(["authenticated"]), SimpleUser(name)


async def test_authenticated_users_of_starlette_are_counted_by_themselves():
    async def endpoint(request):
        track_feature("export")
        return ok()

    middleware = [Middleware(AuthenticationMiddleware, backend=Basic())]
    monitor = monitored(endpoint, middleware=middleware)
    for name in ("ada", "bob", "ada", "nobody"):
        await get(monitor, f"/{name}")

    assert await crowd(monitor) == (2, {"export": (4, 2)})


async def test_a_given_user_id_takes_the_place_of_starlettes_user():
    middleware = [Middleware(AuthenticationMiddleware, backend=Basic())]

    async def endpoint(request):
        return ok()

    monitor = monitored(endpoint, middleware=middleware, user_id=lambda scope: None)
    await get(monitor, "/ada")

    assert await crowd(monitor) == (0, {})


class Identified(BaseUser):
    is_authenticated = True
    identity = "u-1"
    display_name = "Ada"


class Nameless(BaseUser):
    is_authenticated = True


class Broken:
    @property
    def is_authenticated(self):
        raise RuntimeError("no database")


class Odd:
    """Nothing here says the same with the next request."""

    is_authenticated = True
    identity = object()
    username = ""


class Numbered:
    is_authenticated = True
    identity = 7


class Undecided:
    is_authenticated = "perhaps"
    identity = "ada"


UUID = uuid.UUID(int=5)


class Base(DeclarativeBase):
    pass


class Row(Base):
    """A user of the database, with a session that would ask for what is not loaded."""

    __tablename__ = "users"
    username: Mapped[str] = mapped_column(String, primary_key=True)
    is_authenticated = True


def test_a_lazy_user_of_django_is_not_evaluated():
    """Which would ask a database, in the middle of the event loop."""
    asked = []

    def user():
        asked.append(1)
        return SimpleUser("ada")

    assert signed_in(http_scope("/", user=SimpleLazyObject(user))) is None
    assert asked == []


def test_no_attribute_is_fetched_from_a_database():
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    asked = []
    with Session(engine) as session:
        ada = Row(username="ada")
        session.add(ada)
        session.flush()
        loaded = signed_in(http_scope("/", user=ada))
        session.commit()
        event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args))
        expired = signed_in(http_scope("/", user=ada))
    engine.dispose()

    assert (loaded, expired, asked) == ("ada", None, [])


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        (SimpleUser("ada"), "ada"),
        (Identified(), "u-1"),
        (Numbered(), "7"),
        (type("", (), {"is_authenticated": True, "identity": UUID})(), str(UUID)),
        *((user, None) for user in (UnauthenticatedUser(), Nameless(), Broken(), Odd())),
        *((user, None) for user in (Undecided(), None, "ada", 7)),
    ],
)
def test_only_authenticated_users_with_an_identity_are_users(user, identity):
    assert signed_in(http_scope("/", user=user)) == identity


def test_a_header_or_an_address_is_no_user():
    headers = [(b"authorization", b"Bearer ada"), (b"x-user", b"ada")]
    assert signed_in(http_scope("/", headers=headers, client=("10.0.0.1", 1))) is None


async def test_after_the_end_users_are_those_that_were_written(tmp_path):
    monitor = monitored(user_first, history_url=f"sqlite:///{tmp_path}/history.sqlite")
    async with monitor:
        await get(monitor, "/ada")

    assert await crowd(monitor) == (1, {"export": (1, 1)})
