"""What may be asked of history, and the one sentence about what may not: pure."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from math import ceil, floor
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.history.store import Query
from holistic_asgi_monitor.history.tiers import plan
from holistic_asgi_monitor.history.values import Kind
from holistic_asgi_monitor.web.history.asking import (
    LATEST,
    LONGEST_STEP,
    MOST_POINTS,
    WrongParameterError,
    asked,
    parameters_of,
)
from holistic_asgi_monitor.web.history.measures import FILTERS, MEASURES

NOW = 1_795_700_400.5
NAMES = ("metric", "quantile", *FILTERS, "from", "to", "step", "format")


def of(query="", now=NOW, **given):
    pairs = [("metric", "latency")] if "metric" not in given and "metric=" not in query else []
    return asked([*pairs, *parameters_of(query.encode()), *given.items()], now)


def refusal(query):
    with pytest.raises(WrongParameterError) as caught:
        of(query)
    return str(caught.value)


def test_without_parameters_it_is_the_last_day_in_steps_of_five_minutes():
    wanted = of()

    assert (wanted.start, wanted.end, wanted.step) == (int(NOW) - 86_400, int(NOW) + 1, 300)
    assert (wanted.quantile, wanted.format, dict(wanted.filters)) == (0.95, "json", {})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("now", NOW),
        ("-90s", NOW - 90),
        ("-5m", NOW - 300),
        ("-24h", NOW - 86_400),
        ("-7d", NOW - 7 * 86_400),
        ("-2w", NOW - 14 * 86_400),
        ("1795600000", 1_795_600_000),
        ("1795600000.25", 1_795_600_000.25),
        ("2026-11-23T12:00:00+00:00", 1_795_435_200),
        ("2026-11-23T12:00:00Z", 1_795_435_200),
        ("2026-11-23T13:00:00+01:00", 1_795_435_200),
        ("2026-11-23T13:00:00.5+0100", 1_795_435_200.5),
        ("2026-11-23T07:00:00-05:00", 1_795_435_200),
        ("2026-11-23 12:00", 1_795_435_200),
        ("2026-11-23", 1_795_392_000),
    ],
)
def test_a_time_may_be_written_in_several_ways(text, seconds):
    assert of(urlencode({"from": 0, "to": text, "step": LONGEST_STEP})).end == ceil(seconds)


def test_a_plus_that_was_not_escaped_is_understood():
    wanted = of("from=2026-11-23T13:00:00+01:00&to=2026-11-23T14:00+01:00")

    assert (wanted.start, wanted.end) == (1_795_435_200, 1_795_438_800)


@given(
    st.floats(86_400.0, 4_000_000_000.0),
    st.integers(-14 * 60, 14 * 60),
)
def test_every_iso_time_is_the_moment_that_it_names(moment, offset):
    there = datetime.fromtimestamp(moment, timezone(timedelta(minutes=offset)))
    query = urlencode({"from": there.isoformat(), "to": "2100-01-03", "step": LONGEST_STEP})

    assert of(query).start == floor(there.timestamp())


@given(st.integers(0, LATEST), st.integers(0, LATEST), st.integers(1, LONGEST_STEP))
def test_a_range_is_taken_as_it_is_or_refused(start, end, step):
    query = f"metric=cpu&from={start}&to={end}&step={step}"
    in_force = plan(Query(Kind.SYSTEM, start, end, step), NOW).step
    assert in_force >= step
    if 0 < end - start <= MOST_POINTS * in_force:
        wanted = of(query)
        assert (wanted.start, wanted.end, wanted.step) == (start, end, step)
    else:
        assert refusal(query).count(".") == 1


def test_eleven_thousand_points_are_allowed_and_no_more():
    end = int(NOW) - 86_400 + MOST_POINTS * 60
    assert of(f"from={int(NOW) - 86_400}&to={end}&step=60").step == 60
    sentence = refusal(f"from={int(NOW) - 86_400}&to={end + 1}&step=60")

    assert sentence == (
        "The parameter step makes more than 11000 points of this range; "
        "allowed: 61 s or more, or a shorter range."
    )


@pytest.mark.parametrize(
    "query", ["from=-24h&step=1", "from=-13d&step=60", "from=-89d&step=1", "from=-729d&step=300"]
)
def test_the_points_are_those_of_the_step_in_force(query):
    """A minute is the shortest that is kept, and what is older is kept in longer stretches."""
    assert of(query).step < 300 or "729" in query
    assert "11000 points" in refusal(f"{query}&to=2100-01-01")


def test_users_are_counted_by_days_whatever_the_step():
    assert of("metric=users&from=-700d&step=999999").step == 999_999
    assert "11000 points" in refusal("metric=users&from=0&to=99999999999&step=31622400")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            "metric=speed",
            "The parameter metric is 'speed'; allowed: requests, errors, error_rate, latency, health, response_time, cost, tokens, users, feature_uses, cpu, memory, event_loop_lag.",
        ),
        (
            "quantile=1.01",
            "The parameter quantile is '1.01'; allowed: a number from 0 to 1, such as 0.95.",
        ),
        ("step=0", "The parameter step is '0'; allowed: whole seconds from 1 to 31622400."),
        ("format=xml", "The parameter format is 'xml'; allowed: json, csv."),
        ("from=-1h&from=-2h", "The parameter from is given twice; allowed: once."),
        (
            "from=now&to=-1h",
            "The parameter from is not before the parameter to; allowed: an earlier time.",
        ),
        (
            "from=now&to=-0h",
            "The parameter from is not before the parameter to; allowed: an earlier time.",
        ),
        (
            "metric=cpu&endpoint=/a",
            "The parameter endpoint does not apply to the metric cpu; allowed: instance.",
        ),
        (
            "metric=requests&quantile=0.5",
            "The parameter quantile does not apply to the metric requests; allowed: method, endpoint, instance.",
        ),
        ("endpoint=", "The parameter endpoint is ''; allowed: a text of 1 to 1000 characters."),
    ],
)
def test_a_wrong_parameter_is_one_sentence(query, sentence):
    assert refusal(query) == sentence


def test_an_unknown_parameter_is_named_with_those_there_are():
    assert refusal("start=0") == f"There is no parameter 'start'; allowed: {', '.join(NAMES)}."


def test_without_a_metric_the_metrics_are_named():
    with pytest.raises(WrongParameterError, match="metric is missing; allowed: requests, errors"):
        asked([], NOW)


@pytest.mark.parametrize(
    "query",
    [
        *(f"quantile={text}" for text in ("", "-0.1", "2", "nan", "inf", "1e-1", "0,5", "0.5.5")),
        *(f"step={text}" for text in ("", "-300", "1.5", "5m", "1e3", "31622401", "9" * 30, "٣٠٠")),
        *(
            f"from={text}"
            for text in (
                ("", "yesterday", "-24", "24h", "-1y", "--1h", "-1.5h", "-99999999999h", "1e9")
            )
        ),
        *(
            f"from={text}"
            for text in ("-1", "1795700400000", "99999-01-01", "2026-13-01", "now-1h")
        ),
        *(f"to={text}" for text in ("", "Now", "tomorrow", "0001-01-01T00:00:00%2B14:00")),
        *(f"method={text}" for text in ("", "get", "BREW")),
        f"endpoint={'x' * 1001}",
        "&".join(f"x{number}=1" for number in range(60)),
        "metric=latency&metric=latency",
        "metric",
    ],
)
def test_what_is_wrong_is_refused_and_what_is_allowed_is_said(query):
    sentence = refusal(query)

    assert "; allowed" in sentence
    assert sentence.endswith(".")
    assert len(sentence) < 300


@given(st.lists(st.tuples(st.sampled_from([*NAMES, "x"]) | st.text(), st.text()), max_size=4))
def test_whatever_is_given_is_taken_or_refused_in_printable_words(pairs):
    with suppress(WrongParameterError):
        wanted = asked(pairs, NOW)
        assert wanted.end - wanted.start > 0
        return
    with pytest.raises(WrongParameterError) as caught:
        asked(pairs, NOW)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@given(st.binary(max_size=200))
def test_any_bytes_of_an_address_are_parameters_or_refused(raw):
    try:
        assert all(isinstance(text, str) for pair in parameters_of(raw) for text in pair)
    except WrongParameterError:
        assert raw.count(b"&") >= 50


@pytest.mark.parametrize("metric", MEASURES)
def test_every_metric_takes_its_filters_and_asks_for_labels_that_exist(metric):
    measure = MEASURES[metric]
    texts = {name: "GET" if name == "method" else f"a {name}" for name in measure.filters}
    wanted = of(urlencode({"metric": metric, **texts}))

    assert dict(wanted.filters) == texts
    if measure.kind is not None:
        assert set(wanted.query().where) <= set(wanted.query().kind.labels)
        assert wanted.running().kind is Kind.LAG


@pytest.mark.parametrize(
    ("query", "kind", "where", "instance"),
    [
        ("metric=requests", Kind.TRAFFIC, {}, None),
        ("metric=requests&instance=web-1", Kind.TRAFFIC, {}, "web-1"),
        ("metric=errors&method=GET", Kind.REQUESTS, {"method": "GET"}, None),
        ("metric=latency&endpoint=/a", Kind.REQUESTS, {"endpoint": "/a"}, None),
        ("metric=health&service=db", Kind.HEALTH, {"check": "db"}, None),
        ("metric=cpu", Kind.SYSTEM, {"resource": "cpu"}, None),
        ("metric=memory&instance=a", Kind.SYSTEM, {"resource": "memory", "instance": "a"}, None),
        ("metric=event_loop_lag&instance=a", Kind.LAG, {"instance": "a"}, None),
        ("metric=cost&model=m&feature=f", Kind.SPEND, {"model": "m", "feature": "f"}, None),
        ("metric=feature_uses&feature=f", Kind.FEATURES, {"feature": "f"}, None),
    ],
)
def test_a_metric_is_looked_for_where_it_is_kept(query, kind, where, instance):
    found = of(query).query()

    assert (found.kind, dict(found.where), found.instance) == (kind, where, instance)


def test_midnight_in_words_is_midnight_in_utc():
    moment = of("from=2026-11-01&to=2026-11-02").start

    assert datetime.fromtimestamp(moment, UTC) == datetime(2026, 11, 1, tzinfo=UTC)
