"""Labels of Django apps: what its handler resolves is noted, what it never resolved is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.http import Http404, HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path, re_path
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from holistic_asgi_monitor.web.routes import Routes
from tests.web.visits import Copying, Visitor, http_scope, ok

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

if not settings.configured:
    settings.configure(SECRET_KEY="not one", LOGGING_CONFIG=None)


def page(request: HttpRequest, *unnamed: str, **values: str) -> HttpResponse:
    return HttpResponse("a page")


def missing(request: HttpRequest, **values: str) -> HttpResponse:
    raise Http404


class Urls:
    """The root URLconf."""

    urlpatterns = (
        path("", page),
        path("items/<int:item_id>/", page),
        path("plain/<slug>", page),
        path("missing/<x>/", missing),
        re_path(r"^archive/(?P<year>[0-9]{4})/(?:p(?P<page>\d+)/)?$", page),
        re_path(r"^unnamed/(\d+)/([a-z]+)/$", page),
        re_path(r"^data\.(?:json|xml)$", page),
        path(
            "shop/<tenant>/",
            include(
                [
                    path("orders/<uuid:order_id>/", page),
                    re_path(r"^report-(?P<day>\d{8})\.csv$", page),
                ]
            ),
        ),
        *i18n_patterns(path("hello/<name>/", page), prefix_default_language=False),
    )


class OtherUrls:
    """A URLconf that a middleware chooses for some hosts."""

    urlpatterns = (path("items/<other>/", page),)


Answer = Callable[[HttpRequest], HttpResponse]


def choosing(get_response: Answer) -> Answer:
    """Choose another URLconf for one host."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.META.get("HTTP_HOST") == "other.test":
            request.urlconf = OtherUrls
        return get_response(request)

    return middleware


def refusing(get_response: Answer) -> Answer:
    """Refuse whoever asks with a certain header."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if "HTTP_X_STRANGER" in request.META:
            return HttpResponse(status=401)
        return get_response(request)

    return middleware


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    """Django with these URLs, whatever it was configured with before."""
    django.setup()
    with override_settings(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=Urls,
        USE_I18N=True,
        LANGUAGE_CODE="en",
        LANGUAGES=[("en", "English"), ("fr", "French")],
        STATIC_URL="/static/",
        MIDDLEWARE=[
            f"{__name__}.refusing",
            f"{__name__}.choosing",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
    ):
        yield


def app() -> ASGIApp:
    handler: ASGIApp = get_asgi_application()
    return handler


UUID = "550e8400-e29b-41d4-a716-446655440000"
CASES = [
    ("GET", "/", 200, "/"),
    ("GET", "/items/1/", 200, "/items/{item_id}/"),
    ("GET", "/items/2/", 200, "/items/{item_id}/"),
    ("POST", "/items/2/", 200, "/items/{item_id}/"),
    ("GET", "/items/x/", 404, None),
    ("GET", "/items/1", 301, "/items/{item_id}/"),
    ("GET", "/plain/a-b", 200, "/plain/{slug}"),
    ("GET", "/missing/1/", 404, "/missing/{x}/"),
    ("GET", "/archive/2024/", 200, "/archive/{year}/p{page}/"),
    ("GET", "/archive/2024/p7/", 200, "/archive/{year}/p{page}/"),
    ("GET", "/unnamed/1/a/", 200, "/unnamed/{var}/{var}/"),
    ("GET", "/data.json", 200, "/data.{var}"),
    ("GET", f"/shop/acme/orders/{UUID}/", 200, "/shop/{tenant}/orders/{order_id}/"),
    ("GET", "/shop/acme/report-20240131.csv", 200, "/shop/{tenant}/report-{day}.csv"),
    ("GET", "/shop/acme/nope", 404, None),
    ("GET", "/nowhere", 404, None),
]


@pytest.mark.parametrize("root_path", ["", "/proxy"])
@pytest.mark.parametrize("wrap", [lambda app: app, Copying], ids=["seen", "copied"])
@pytest.mark.parametrize(("method", "path", "status", "endpoint"), CASES)
async def test_the_label_is_the_whole_route(
    method: str,
    path: str,
    status: int,
    endpoint: str | None,
    wrap: Callable[[ASGIApp], ASGIApp],
    root_path: str,
) -> None:
    found = await Visitor(wrap(app()))(root_path + path, method, root_path=root_path)
    assert (found.status, found.endpoint) == (status, endpoint)
    assert not found.cacheable


async def test_a_route_below_a_language_is_noted_in_any_language() -> None:
    visit = Visitor(app())
    asked = ["/hello/ann/", "/fr/hello/ann/", "/fr/hello/bob/"]
    labels = ["/hello/{name}/", "/fr/hello/{name}/", "/fr/hello/{name}/"]
    assert [await visit.endpoint(path) for path in asked] == labels


async def test_the_urlconf_that_a_middleware_chose_is_the_one() -> None:
    visit = Visitor(app())
    assert await visit.endpoint("/items/1/", host="other.test") == "/items/{other}/"
    assert await visit.endpoint("/items/1/", host="some.test") == "/items/{item_id}/"


async def test_what_a_middleware_answers_is_labelled_by_its_path() -> None:
    found = await Visitor(app())("/items/1/", headers=[(b"x-stranger", b"yes")])
    assert (found.status, found.endpoint) == (401, "/items/{item_id}/")


async def test_several_monitors_note_one_resolution() -> None:
    handler: Any = app()
    first, second = Visitor(handler), Visitor(handler)
    assert await first.endpoint("/items/1/") == await second.endpoint("/items/1/")
    assert not hasattr(handler.resolve_request.__wrapped__, "__wrapped__")


async def test_the_handler_for_static_files_shows_what_it_wraps(tmp_path: Path) -> None:
    visit = Visitor(ASGIStaticFilesHandler(get_asgi_application()))
    assert await visit.endpoint("/items/1/") == "/items/{item_id}/"
    assert await visit.endpoint("/static/none.css") is None


class ByProtocol:
    """As Channels' router: an app for each type of scope."""

    def __init__(self, **apps: ASGIApp) -> None:
        self.application_mapping = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.application_mapping[scope["type"]](scope, receive, send)


async def test_behind_a_router_for_protocols_only_http_has_routes() -> None:
    visit = Visitor(ByProtocol(http=app(), websocket=ok))
    assert await visit.endpoint("/items/1/") == "/items/{item_id}/"
    assert (await visit.websocket("/chat/17")).endpoint == "/chat/{id}"


async def test_below_a_starlette_mount_the_prefix_is_kept() -> None:
    visit = Visitor(Starlette(routes=[Mount("/old/{x}", app())]))
    assert await visit.endpoint("/old/1/items/1/") == "/old/{x}/items/{item_id}/"
    assert await visit.endpoint("/old/1/items/1/", host="other.test") == "/old/{x}/items/{other}/"
    assert await visit.endpoint("/old/1/fr/hello/ann/") == "/old/{x}/fr/hello/{name}/"
    assert await visit.endpoint("/old/1/nope") is None
    assert (await visit.websocket("/old/1/items/1/")).endpoint is None


async def test_a_request_without_its_scope_is_answered_all_the_same() -> None:
    handler: Any = app()
    Routes(handler)
    request = HttpRequest()
    request.path_info = "/items/1/"
    assert handler.resolve_request(request).route == "items/<int:item_id>/"
    scope = http_scope("/items/1/")
    request.scope = scope
    handler.resolve_request(request)
    assert "items/<int:item_id>/" in scope.values()
