"""What is so with a key by two who looked at it: who told of it until now, and who does from now.

Pure. Incidents keep the numbers by which readers know them; what both have seen counts once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from holistic_asgi_monitor.alerts.condition import Condition, Incident, Policy

__all__ = ("joined",)


def joined(own: Condition, known: Condition, policy: Policy) -> Condition:
    """What we see by `own`, continued from what was `known` to who told of it before.

    The incident that is open there is the one that is open here. What is well here for long
    enough is over, and what is not is still open, if it was.
    """
    if known.open is None:
        return _begun_since(own, known)
    if own.open is None and own.good < policy.successes:
        # Neither good nor bad for long enough: the next rounds will say.
        return replace(known, bad=own.bad, good=own.good, row_began=own.row_began, seen=own.seen)
    if own.open is not None:
        return _as_seen(own, known, open=_continued(own.open, known.open))
    over = replace(known.open, ended_at=_end(own, known.open))
    ended = known.ended if over.silent else (*known.ended, over)
    return _as_seen(own, known, open=None, ended=ended, last=over)


def _begun_since(own: Condition, known: Condition) -> Condition:
    """The condition where nothing was open: what we saw end or begin after that is news."""
    news = tuple(
        replace(each, serial=known.serial + number)
        for number, each in enumerate(filter(lambda each: _is_news(each, known), own.ended), 1)
    )
    serial = known.serial + len(news)
    last = news[-1] if news else known.last or own.last
    if own.open is None or (own.good and not _is_news(own.open, known)):
        return _as_seen(own, known, serial=serial, ended=(*known.ended, *news), last=last)
    begun = replace(own.open, serial=serial + 1)
    return _as_seen(
        own,
        known,
        serial=serial + 1,
        open=begun,
        ended=(*known.ended, *news),
        last=last,
        opened=(*known.opened, *own.opened[-1:]),
    )


def _as_seen(
    own: Condition,
    known: Condition,
    *,
    serial: int | None = None,
    open: Incident | None = None,  # noqa: A002 - as the field is called
    ended: tuple[Incident, ...] | None = None,
    last: Incident | None = None,
    opened: tuple[tuple[float, datetime], ...] | None = None,
) -> Condition:
    """Our rounds, with these incidents; how often there were some is what the other counted."""
    return replace(
        own,
        serial=known.serial if serial is None else serial,
        open=open,
        flapping=known.flapping,
        ended=known.ended if ended is None else ended,
        last=last or known.last,
        opened=known.opened if opened is None else opened,
        changed=max(own.changed, known.changed),
    )


def _continued(own: Incident, known: Incident) -> Incident:
    """The incident as we see it, with its number and its beginning."""
    return replace(
        own,
        serial=known.serial,
        started_at=min(own.started_at, known.started_at),
        by_ratio=known.by_ratio,
        silent=own.silent and known.silent,
    )


def _end(own: Condition, known: Incident) -> datetime:
    """When what was open was over, by what we saw."""
    last = own.last
    if last is not None and last.ended_at is not None and last.ended_at > known.started_at:
        return last.ended_at
    return max(own.row_began or known.started_at, known.started_at)


def _is_news(incident: Incident, known: Condition) -> bool:
    """Whether it began after all that the other saw end."""
    ends = [each.ended_at for each in (*known.ended, known.last) if each is not None]
    return all(end is None or incident.started_at > end for end in ends)
