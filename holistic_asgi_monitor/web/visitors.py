"""Who made a request, by what Starlette's authentication has left in the scope."""

from __future__ import annotations

from uuid import UUID

from starlette.types import Scope

__all__ = ("signed_in",)

_NAMES = ("identity", "username", "display_name")


def signed_in(scope: Scope) -> str | None:
    """The id of the authenticated user of a request, None where there is none; never raises.

    Only `scope["user"]` is looked at: a header or an address is no identity.
    """
    user = scope.get("user")
    if _attribute(user, "is_authenticated") is not True:
        return None
    for name in _NAMES:
        found = _attribute(user, name)
        # Whatever else it is, its text may be another with each request.
        if isinstance(found, str | int | UUID) and not isinstance(found, bool) and str(found):
            return str(found)
    return None


def _attribute(user: object, name: str) -> object:
    try:
        return getattr(user, name, None)
    except Exception:
        # Starlette's own base class raises NotImplementedError for what it does not know.
        return None
