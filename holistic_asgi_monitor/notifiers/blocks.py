"""The Slack message for some alerts, as somebody woken at three wants to read it.

What is broken stands first and in the notification; then what was seen, since when, what it means;
then where, and where to look. Everything is escaped once, and then cut within Slack's limits, for
over a limit Slack refuses the whole message. A message of several paragraphs, as a summary of the
day, has a section for each, under a head in bold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeGuard

from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.notifiers.wording import clean, how_long, origin, paragraphs

__all__ = ("escaped", "message", "shortened")

FULL_ALERTS = 10
BRIEF_ALERTS = 60
SECTION_LIMIT = 3000
NOTIFICATION_LIMIT = 1000
TITLE_LIMIT = 250
SUMMARY_LIMIT = 1200
DETAIL_LIMIT = 200
LIST_LIMIT = 600
MOST_DETAILS = 6
BRIEF_LIMIT = 120
LINK_LIMIT = 1000
DETAILS_ROOM = 1250
MOST_LINES = 5
LINE_LIMIT = 500
MOST_PARAGRAPHS = 20
# Slack says nowhere how long all blocks may be together, and refuses 11,000 characters of text.
ROOM = 7000
BRIEF_ROOM = 3000
BLOCK_COST = 100

_CUT = "…"
_OVER = "\N{WHITE HEAVY CHECK MARK}"
_MARKS = {
    Severity.INFO: "\N{LARGE BLUE CIRCLE}",
    Severity.WARNING: "\N{LARGE YELLOW CIRCLE}",
    Severity.ERROR: "\N{LARGE ORANGE CIRCLE}",
    Severity.CRITICAL: "\N{LARGE RED CIRCLE}",
}
# What it means and what went before; then come the numbers of the check.
_FIRST_DETAILS = ("impact", "affected", "endpoints", "earlier", "was", "now", "incidents")
# What the sentences of the rules say already, in most cases.
_NUMBERS = ("count", "errors", "error_rate_percent", "p95_ms", "bad", "bad_percent", "burn_rate")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_ORDER = (AlertState.FIRING, AlertState.NOTICE, AlertState.RESOLVED)
_NOUNS = {
    AlertState.FIRING: "in trouble",
    AlertState.NOTICE: "to note",
    AlertState.RESOLVED: "over",
}


def message(alerts: Sequence[Alert], now: datetime) -> dict[str, Any]:
    """The body of one message for all `alerts`, of which there is at least one; `now` is UTC."""
    ordered = sorted(alerts, key=lambda each: (_ORDER.index(each.state), -each.severity.gravity))
    head = [f"*{_counts(ordered)}*"] if len(ordered) > 1 else []
    texts = [*head, *_told(ordered, now)]
    return {
        "text": _notification(ordered),
        "blocks": [*map(_section, texts), *_foot(ordered[0])],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def escaped(text: object, limit: int) -> str:
    """One line of text that Slack shows as it is, at most `limit` long, no entity cut."""
    safe = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(safe) <= limit:
        return safe
    cut = safe[: limit - len(_CUT)]
    entity = cut.rfind("&")
    if entity > cut.rfind(";"):
        cut = cut[:entity]
    return cut + _CUT


def shortened(alert: Alert) -> Alert:
    """The alert without what no message would show of it, to be kept for a later one."""
    pairs = _pairs(alert)
    details = {
        clean(name)[:DETAIL_LIMIT]: _kept_value(value) for name, value in pairs[:MOST_DETAILS]
    }
    return replace(
        alert,
        title=_title(alert)[:TITLE_LIMIT],
        summary=clean(alert.summary)[:SUMMARY_LIMIT],
        details=MappingProxyType(details),
        service=clean(alert.service)[:TITLE_LIMIT],
        environment=clean(alert.environment)[:TITLE_LIMIT],
        instance=clean(alert.instance)[:TITLE_LIMIT],
        dashboard_url=_kept_link(alert.dashboard_url),
        runbook_url=_kept_link(alert.runbook_url),
    )


def _kept_value(value: object) -> str | list[str]:
    if _is_list_of_texts(value):
        return [clean(each)[:DETAIL_LIMIT] for each in value[:MOST_LINES]]
    return clean(_value(value))[:DETAIL_LIMIT]


def _kept_link(url: str | None) -> str | None:
    return url if url and _is_whole(url) else None


def _notification(alerts: Sequence[Alert]) -> str:
    """What a phone shows: where, what, and how bad."""
    first, *others = alerts
    mark, place = _mark(first), _place(first)
    if not others:
        said = ". ".join(filter(None, (_title(first), _gist(first))))
    else:
        said = f"{_tally(alerts)}: {'; '.join(map(_title, alerts))}"
    return escaped(f"{mark} {place}{said}", NOTIFICATION_LIMIT)


def _gist(alert: Alert) -> str:
    """The summary; of one of several paragraphs the first that has a head."""
    long = paragraphs(alert)
    if not long:
        return clean(alert.summary)
    head, *lines = next((each for each in long if len(each) > 1), long[0])
    return f"{head}: {'; '.join(lines)}" if lines else head


def _counts(alerts: Sequence[Alert]) -> str:
    return escaped(f"{_mark(alerts[0])} {_place(alerts[0])}{_tally(alerts)}", TITLE_LIMIT)


def _tally(alerts: Sequence[Alert]) -> str:
    counts = [(sum(alert.state is state for alert in alerts), state) for state in _ORDER]
    return ", ".join(f"{count} {_NOUNS[state]}" for count, state in counts if count)


def _told(ordered: Sequence[Alert], now: datetime) -> list[str]:
    """What is said of the alerts: of the first ones all, of more of them a line, then how many."""
    several = len(ordered) > 1
    full, room, told = _full(ordered[0], now, placed=not several), ROOM, 1
    for alert in ordered[1:FULL_ALERTS]:
        texts = _full(alert, now, placed=False)
        if _cost([*full, *texts]) > room - BRIEF_ROOM:
            break
        full += texts
        told += 1
    room -= _cost(full)
    lines: list[str] = []
    for alert in ordered[told:][:BRIEF_ALERTS]:
        line = _brief(alert)
        room -= len(line) + 1
        if room < BLOCK_COST:
            break
        lines.append(line)
    left = len(ordered) - told - len(lines)
    return [*full, *_packed(lines), *([f"and {left} more"] if left else [])]


def _cost(texts: Sequence[str]) -> int:
    return sum(len(text) + BLOCK_COST for text in texts)


def _full(alert: Alert, now: datetime, *, placed: bool) -> list[str]:
    """All that is said of an alert: one text, or for a long message one for each paragraph."""
    place = _place(alert) if placed else ""
    lines = [f"{_mark(alert)} *{escaped(place + _title(alert), TITLE_LIMIT)}*"]
    long = paragraphs(alert)
    if long:
        return list(_long(lines[0], long))
    if alert.summary:
        lines.append(escaped(alert.summary, SUMMARY_LIMIT))
    lines.append(escaped(_when(alert, now), DETAIL_LIMIT))
    lines += _details(alert)
    return ["\n".join(filter(None, lines))]


def _long(title: str, long: Sequence[Sequence[str]]) -> Iterator[str]:
    """The title with what stands alone below it, then each paragraph, as many as there is room."""
    room = ROOM - len(title)
    first = [escaped(line, LINE_LIMIT) for line in long[0]]
    texts = [["\n".join([title, *first])]] if len(long[0]) == 1 else [[title], _paragraph(long[0])]
    texts += [_paragraph(lines) for lines in long[1:MOST_PARAGRAPHS]]
    for lines in texts:
        text = _within("\n".join(lines))
        room -= len(text) + BLOCK_COST
        if room < 0:
            yield "and more, for which there is no room"
            return
        yield text


def _paragraph(lines: Sequence[str]) -> list[str]:
    head, *others = (escaped(line, LINE_LIMIT) for line in lines)
    return [f"*{head}*", *others] if others else [head]


def _within(text: str) -> str:
    """The text, without the last lines where it is longer than a section may be."""
    while len(text) > SECTION_LIMIT:
        text = text.rpartition("\n")[0]
    return text


def _brief(alert: Alert) -> str:
    said = escaped(_title(alert), BRIEF_LIMIT)
    if alert.summary:
        said += f": {escaped(alert.summary, BRIEF_LIMIT)}"
    return f"{_mark(alert)} {said}"


def _packed(lines: Sequence[str]) -> list[str]:
    """The lines in as few texts as the limit allows."""
    texts: list[str] = []
    for line in lines:
        if texts and len(texts[-1]) + 1 + len(line) <= SECTION_LIMIT:
            texts[-1] += f"\n{line}"
        else:
            texts.append(line)
    return texts


def _when(alert: Alert, now: datetime) -> str:
    if alert.state is AlertState.NOTICE:
        return ""
    began = _moment(alert.started_at, now)
    if alert.state is AlertState.FIRING:
        lasts = how_long(alert.started_at, now)
        return f"{alert.severity.value.capitalize()}, since {began} UTC, for {lasts} by now"
    late = " This could not be delivered earlier." if alert.reason == "was_down" else ""
    if alert.ended_at is None:
        return f"It began at {began} UTC.{late}"
    lasted = how_long(alert.started_at, alert.ended_at)
    ended = _moment(alert.ended_at, now)
    return f"It lasted {lasted}, from {began} to {ended} UTC.{late}"


def _moment(time: datetime, now: datetime) -> str:
    """The time of day, with the day where it is not today."""
    return f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%Y-%m-%d %H:%M:%S}"


def _details(alert: Alert) -> Iterator[str]:
    pairs = _pairs(alert)
    said, room = 0, DETAILS_ROOM
    for name, value in pairs[:MOST_DETAILS]:
        detail = _detail(name, value)
        room -= len(detail)
        if room < 0:
            break
        said += 1
        yield detail
    if len(pairs) > said:
        yield f"• and {len(pairs) - said} more"


def _detail(name: str, value: object) -> str:
    """A detail on one line, or a list of texts with a line for each that there is room for."""
    if not _is_list_of_texts(value):
        return f"• {escaped(f'{name}: {_value(value)}', DETAIL_LIMIT)}"
    text = f"• {escaped(name, DETAIL_LIMIT)}:"
    for each in value:
        line = f"\n    {escaped(each, DETAIL_LIMIT)}"
        if len(text) + len(line) > LIST_LIMIT:
            break
        text += line
    return text


def _is_list_of_texts(value: object) -> TypeGuard[Sequence[str]]:
    if not isinstance(value, list | tuple):
        return False
    return bool(value) and all(isinstance(each, str) for each in value)


def _pairs(alert: Alert) -> list[tuple[str, object]]:
    """The details, those first that a reader needs first."""
    first = {name: alert.details[name] for name in _FIRST_DETAILS if name in alert.details}
    said = _said(alert)
    others = {name: value for name, value in alert.details.items() if name not in said}
    return list({**first, **others}.items())


def _said(alert: Alert) -> set[str]:
    """The numbers among the details that the summary has, or that follow from it."""
    words = set(_NUMBER.findall(clean(alert.summary)))
    said = {name for name in _NUMBERS if _ways(alert.details.get(name)) & words}
    if {"count", "error_rate_percent"} <= said:
        said.add("errors")
    return said | ({"bad"} if {"count", "bad_percent"} <= said else set())


def _ways(value: object) -> set[str]:
    """How the number may be written in a summary."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    return {f"{value:,}", f"{value:,.0f}", f"{value:.3g}"}


def _value(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _foot(alert: Alert) -> Iterator[dict[str, Any]]:
    """Where it comes from, and where to look."""
    where = escaped(origin(alert), TITLE_LIMIT)
    links = [
        f"<{escaped(url, LINK_LIMIT).replace('|', '%7C')}|{label}>"
        for url, label in ((alert.dashboard_url, "Dashboard"), (alert.runbook_url, "Runbook"))
        if url and _is_whole(url)
    ]
    text = " · ".join(filter(None, (where, *links)))
    if text:
        yield {"type": "context", "elements": [_markdown(text)]}


def _is_whole(url: str) -> bool:
    """Whether it is a web address that will not be cut."""
    web = url.startswith(("https://", "http://")) and " " not in url
    return web and clean(url) == url and not escaped(url, LINK_LIMIT).endswith(_CUT)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> dict[str, Any]:
    # Verbatim: Slack would make links and channels of whatever looks like one.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _mark(alert: Alert) -> str:
    return _OVER if alert.state is AlertState.RESOLVED else _MARKS[alert.severity]


def _place(alert: Alert) -> str:
    environment = f" ({alert.environment})" if alert.environment else ""
    return f"{alert.service}{environment}: " if alert.service else ""


def _title(alert: Alert) -> str:
    return clean(alert.title) or clean(alert.key) or "Alert"
