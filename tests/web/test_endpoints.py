"""Our own paths: what they answer, to whom, and in which form."""

import gzip
import json

import anyio
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from holistic_asgi_monitor import CheckResult, Monitor, Settings, Status, notifiers
from tests.web.exchanges import counted, get, http_scope, sample

TOKEN = "correct horse"
BEARER = [(b"authorization", b"Bearer correct horse")]
STRANGER = ("203.0.113.9", 1)


async def page(request):
    return PlainTextResponse("the app's own")


def monitored(*, checks=(), app=None, **settings):
    routes = [Route("/{path:path}", page, methods=["GET", "POST"])]
    return Monitor(
        app or Starlette(routes=routes),
        settings=Settings(service="shop", **settings),
        checks=list(checks),
        notifiers=[notifiers.Memory()],
    )


def failing(monitor, name, status, *, required=False, message="text for the authorised"):
    @monitor.check(name, required=required)
    async def check():
        return CheckResult(status, message, {"pool": 3})


async def body(monitor, path, **more):
    exchange = await get(monitor, path, **more)
    return exchange.status, json.loads(exchange.body)


async def test_health_reports_the_whole_and_each_service():
    monitor = monitored(token=TOKEN)
    failing(monitor, "redis", Status.DEGRADED, message="redis is slow")
    status, report = await body(monitor, "/api/health", headers=BEARER)

    assert status == 200
    assert report["overall_status"] == "degraded"
    assert report["service"] == "shop"
    assert report["services"]["redis"]["message"] == "redis is slow"
    assert report["services"]["redis"]["details"] == {"pool": 3}
    assert report["summary"]["warnings"] == ["redis: redis is slow"]
    assert "traffic" in report["summary"]["healthy_services"]
    assert report["timestamp"].endswith("+00:00")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.HEALTHY, 200),
        (Status.SKIPPED, 200),
        (Status.UNKNOWN, 200),
        (Status.DEGRADED, 200),
        (Status.UNHEALTHY, 503),
        (Status.CRITICAL, 503),
    ],
)
async def test_health_is_503_for_unhealthy_and_critical(status, code):
    monitor = monitored()
    failing(monitor, "database", status)

    assert (await get(monitor, "/api/health")).status == code


@pytest.mark.parametrize("required", [True, False])
async def test_simple_is_503_only_when_a_required_check_fails(required):
    monitor = monitored()
    failing(monitor, "database", Status.CRITICAL, required=required)
    assert await body(monitor, "/api/health/simple") == (200, {"status": "healthy"})

    await monitor.report(fresh=True)
    expected = (503, {"status": "unhealthy"}) if required else (200, {"status": "healthy"})
    assert await body(monitor, "/api/health/simple") == expected
    assert (await get(monitor, "/api/health/live")).status == 200


async def test_ready_is_503_while_draining():
    monitor = monitored()
    assert (await get(monitor, "/api/health/ready")).status == 200
    monitor.drain()
    assert await body(monitor, "/api/health/ready") == (503, {"status": "unhealthy"})
    assert (await get(monitor, "/api/health/live")).status == 200


async def test_ready_follows_the_checks_named_for_it():
    monitor = monitored(ready_checks=("database",))
    failing(monitor, "database", Status.CRITICAL)
    failing(monitor, "other", Status.CRITICAL, required=True)
    await monitor.report(fresh=True)

    assert (await get(monitor, "/api/health/ready")).status == 503


async def test_ready_does_not_mind_checks_that_are_not_named():
    monitor = monitored(ready_checks=("other",))
    failing(monitor, "database", Status.CRITICAL, required=True)
    failing(monitor, "other", Status.DEGRADED)
    await monitor.report(fresh=True)

    assert (await get(monitor, "/api/health/ready")).status == 200


async def test_strangers_see_the_statuses_and_nothing_else():
    monitor = monitored()
    failing(monitor, "redis", Status.CRITICAL, message="host db-7 is down")
    exchange = await get(monitor, "/api/health", client=STRANGER)
    report = json.loads(exchange.body)

    assert report["services"]["redis"] == {"status": "critical", "response_time_ms": None} or (
        set(report["services"]["redis"]) == {"status", "response_time_ms"}
    )
    assert report["summary"] == {"healthy_services": ["traffic"]}
    assert b"db-7" not in exchange.body
    assert b"pool" not in exchange.body


async def test_the_ietf_form_is_given_when_asked_for():
    monitor = monitored(token=TOKEN)
    failing(monitor, "redis", Status.DEGRADED, message="slow")
    accept = (b"accept", b"application/health+json")
    exchange = await get(monitor, "/api/health", headers=[*BEARER, accept])
    report = json.loads(exchange.body)

    assert exchange.headers["content-type"] == "application/health+json"
    assert report["status"] == "warn"
    assert report["checks"]["redis:responseTime"][0]["output"] == "slow"
    public = await get(monitor, "/api/health", headers=[accept], client=STRANGER)
    assert b"slow" not in public.body


@pytest.mark.parametrize(
    "path",
    [
        "/api/health",
        "/api/health/simple",
        "/api/health/live",
        "/api/health/ready",
        "/metrics",
        "/api/monitoring/stats",
        "/api/monitoring/alerts",
    ],
)
class TestEveryPath:
    async def test_it_answers_with_and_without_a_slash_and_is_never_stored(self, path):
        monitor = monitored(access="open")
        for variant in (path, f"{path}/"):
            exchange = await get(monitor, variant)
            assert exchange.status == 200
            assert exchange.headers["cache-control"] == "no-store"
            assert int(exchange.headers["content-length"]) == len(exchange.body)

    async def test_head_has_the_headers_without_the_body(self, path):
        monitor = monitored(access="open")
        exchange = await get(monitor, path, "HEAD")

        assert exchange.status == 200
        assert exchange.body == b""
        assert int(exchange.headers["content-length"]) > 0

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "FOOBAR"])
    async def test_other_methods_are_405_with_allow(self, path, method):
        exchange = await get(monitored(access="open"), path, method)

        assert exchange.status == 405
        assert exchange.headers["allow"] == "GET, HEAD"

    @pytest.mark.parametrize("prefixed", [True, False])
    async def test_it_answers_under_a_root_path(self, path, prefixed):
        """Some servers leave the root path in the path, some take it off."""
        target = f"/proxy{path}" if prefixed else path
        monitor = monitored(access="open")
        assert (await get(monitor, target, root_path="/proxy")).status == 200
        assert (await get(monitor, target, root_path="/proxy/")).status == 200
        assert counted(monitor) == {}


@pytest.mark.parametrize(
    ("setting", "gone", "still"),
    [
        ("health_path", ["/api/health", "/api/health/simple", "/api/health/ready"], "/metrics"),
        ("metrics_path", ["/metrics"], "/api/health"),
        (
            "prefix",
            ["/api/monitoring/stats", "/api/monitoring/history", "/api/monitoring/alerts"],
            "/metrics",
        ),
    ],
)
async def test_an_empty_path_switches_its_endpoints_off(setting, gone, still):
    monitor = monitored(access="open", **{setting: ""})
    for path in gone:
        assert (await get(monitor, path)).body == b"the app's own"
    assert (await get(monitor, still)).body != b"the app's own"


async def test_paths_can_be_moved():
    monitor = monitored(access="open", metrics_path="/internal/metrics")

    assert b"# TYPE" in (await get(monitor, "/internal/metrics")).body
    assert (await get(monitor, "/metrics")).body == b"the app's own"


@pytest.mark.parametrize("path", ["/metrics", "/api/monitoring/stats", "/api/monitoring/alerts"])
class TestAccess:
    async def test_a_stranger_is_refused_with_a_sentence_that_names_the_way_in(self, path):
        exchange = await get(monitored(), path, client=STRANGER)

        assert exchange.status == 403
        assert "MONITOR_TOKEN" in json.loads(exchange.body)["error"]

    async def test_with_a_token_only_the_token_opens(self, path):
        monitor = monitored(token=TOKEN)
        refused = await get(monitor, path)

        assert refused.status == 401
        assert "www-authenticate" in refused.headers
        assert (await get(monitor, path, headers=BEARER)).status == 200

    async def test_local_development_is_open_to_this_machine(self, path):
        monitor = monitored(environment="development")

        assert (await get(monitor, path)).status == 200
        forwarded = [(b"x-forwarded-for", b"10.0.0.1")]
        assert (await get(monitor, path, headers=forwarded)).status == 403


async def test_below_a_root_path_the_apps_own_routes_stay_its_own():
    """With the root path /api, /api/health is the app's /health."""
    monitor = monitored(access="open")

    assert (await get(monitor, "/api/health", root_path="/api")).body == b"the app's own"
    assert (await get(monitor, "/api/metrics", root_path="/api")).status == 200
    assert (await get(monitor, "/apimetrics", root_path="/api")).body == b"the app's own"


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("attached", [True, False])
async def test_they_answer_below_the_root_path_that_fastapi_sets_itself(attached):
    app = FastAPI(root_path="/proxy")
    monitor = Monitor.attach(app, checks=[]) if attached else Monitor(app, checks=[])
    served = app if attached else monitor

    for path in ("/proxy/metrics", "/metrics", "/proxy/api/health/live/"):
        assert (await get(served, path)).status == 200
    assert (await get(served, "/proxy/proxy/metrics")).status == 404
    assert counted(monitor) == {("GET", "_unmatched", "404"): 1}


async def test_metrics_is_open_to_private_peers_by_default():
    monitor = monitored()

    assert (await get(monitor, "/metrics", client=("10.1.2.3", 5))).status == 200
    assert (await get(monitor, "/api/monitoring/stats", client=("10.1.2.3", 5))).status == 403


async def test_metrics_is_compressed_only_for_who_accepts_it():
    monitor = monitored()
    accepting = await get(monitor, "/metrics", headers=[(b"accept-encoding", b"br, gzip")])
    refusing = await get(monitor, "/metrics", headers=[(b"accept-encoding", b"gzip;q=0, br")])

    assert accepting.headers["content-encoding"] == "gzip"
    assert b"# TYPE" in gzip.decompress(accepting.body)
    assert "content-encoding" not in refusing.headers
    assert "Accept-Encoding" in refusing.headers["vary"]


async def test_metrics_speaks_openmetrics_and_filters_by_name():
    monitor = monitored()
    await get(monitor, "/items")
    accept = [(b"accept", b"application/openmetrics-text; version=1.0.0")]
    exchange = await get(monitor, "/metrics?name[]=holisticos_requests_total", headers=accept)

    assert exchange.headers["content-type"].startswith("application/openmetrics-text")
    assert exchange.body.endswith(b"# EOF\n")
    names = {line.split(b"{")[0] for line in exchange.body.splitlines() if line[:1] != b"#"}
    assert names == {b"holisticos_requests_total"}


async def test_a_large_page_comes_in_pieces_of_moderate_size():
    monitor = monitored(max_endpoints=5_000)
    for number in range(1_500):
        monitor.track_request("GET", f"/items/{number}", 200, 0.01)
    exchange = await get(monitor, "/metrics")
    pieces = [m["body"] for m in exchange.sent if m["type"] == "http.response.body"]

    assert len(pieces) > 5
    assert max(map(len, pieces)) < 500_000


async def test_the_users_own_metrics_stand_on_the_page():
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc(4)
    monitor = Monitor(Starlette(), settings=Settings(service="x"), checks=[], registry=registry)

    assert sample((await get(monitor, "/metrics")).body.decode(), "orders_total") == ["4.0"]


async def test_stats_say_what_memory_holds():
    monitor = monitored(access="open", app_version="1.2.3")
    for _ in range(3):
        await get(monitor, "/items")
    monitor.track_feature("export")
    monitor.set_user("alice")
    await monitor.report(fresh=True)
    _, stats = await body(monitor, "/api/monitoring/stats")

    assert stats["service"] == "shop"
    assert stats["version"] == "1.2.3"
    assert stats["health"]["overall_status"] == "healthy"
    assert stats["requests"]["total"] == 3
    assert stats["requests"]["in_progress"] == 0
    assert set(stats["requests"]["windows"]) == {"1m", "5m", "1h", "24h"}
    assert stats["requests"]["windows"]["1m"]["count"] == 3
    assert stats["requests"]["windows"]["5m"]["p95_ms"] > 0
    row = stats["requests"]["endpoints"][0]
    assert (row["method"], row["endpoint"], row["count"]) == ("GET", "/{path}", 3)
    assert stats["features"][0]["feature"] == "export"
    assert stats["users"] == {"day": 1, "week": 1, "month": 1}
    assert stats["system"]["memory_bytes"] > 1_000_000
    assert stats["errors"] == []
    assert set(stats["alerts"]) == {"open", "recent", "maintenance"}
    assert "alice" not in json.dumps(stats)


async def test_stats_name_exceptions_by_type_and_never_by_text():
    async def broken(request):
        raise ValueError("postgresql://u:p@host")

    monitor = monitored(access="open", app=Starlette(routes=[Route("/broken", broken)]))
    with pytest.raises(ValueError, match="postgresql"):
        await get(monitor, "/broken")
    exchange = await get(monitor, "/api/monitoring/stats")
    error = json.loads(exchange.body)["errors"][0]

    assert (error["type"], error["method"], error["endpoint"]) == ("ValueError", "GET", "/broken")
    assert b"postgresql" not in exchange.body


async def test_two_hundred_callers_share_one_round():
    monitor = monitored()
    calls = 0
    release = anyio.Event()

    @monitor.check("slow")
    async def slow():
        nonlocal calls
        calls += 1
        await release.wait()

    bodies = []

    async def call():
        exchange = await get(monitor, "/api/health")
        bodies.append(json.loads(exchange.body)["services"])

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(call)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        release.set()

    assert calls == 1
    assert len(bodies) == 200
    assert all(services["slow"]["status"] == "healthy" for services in bodies)


async def test_an_endpoint_that_fails_says_so_and_nothing_more(monkeypatch, caplog):
    monitor = monitored(access="open")

    def raising(*arguments, **options):
        raise RuntimeError("secret")

    monkeypatch.setattr(type(monitor._parts.windows), "window", raising)
    exchange = await get(monitor, "/api/monitoring/stats")

    assert exchange.status == 500
    assert b"secret" not in exchange.body
    assert "could not answer" in caplog.text
    assert (await get(monitor, "/items")).body == b"the app's own"


async def test_a_failing_page_leaves_the_application_alone(monkeypatch):
    monitor = monitored(access="open")

    def raising(*arguments, **options):
        raise RuntimeError

    monkeypatch.setattr(type(monitor._parts.catalogue), "__iter__", raising)
    assert (await get(monitor, "/metrics")).status == 500
    assert (await get(monitor, "/items")).status == 200


async def test_a_scope_without_a_root_path_is_served():
    scope = http_scope("/api/health/live")
    del scope["root_path"]
    from tests.web.exchanges import Exchange

    exchange = await Exchange().run(monitored(), scope)
    assert exchange.status == 200


@pytest.mark.parametrize("root_path", [b"/proxy", None, 5])
async def test_a_root_path_that_is_no_text_is_the_applications_to_judge(root_path):
    monitor = Monitor(page_of_any_scope, settings=Settings(service="x"), checks=[])
    exchange = await get(monitor, "/items", root_path=root_path)

    assert (exchange.status, exchange.body) == (200, b"mine")


async def page_of_any_scope(scope, receive, send):
    await PlainTextResponse("mine")({"type": "http"}, receive, send)
