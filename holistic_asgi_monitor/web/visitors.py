"""Who made a request, by what Starlette's authentication has left in the scope."""

from __future__ import annotations

from functools import cached_property, lru_cache
from types import MemberDescriptorType
from typing import Any
from uuid import UUID

from starlette.types import Scope

__all__ = ("signed_in",)

_NAMES = ("identity", "username", "display_name")
_ASKED = (property, cached_property, MemberDescriptorType)


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
    """An attribute of a user, None where it cannot be had or would have to be fetched first.

    A proxy, as Django's lazy user is one, asks a database for whatever it is asked; so does a row
    of a mapper for a column that is not loaded.
    """
    try:
        kind: Any = type(user)
        if _is_at_hand(kind, name):
            return getattr(user, name, None)
        return object.__getattribute__(user, "__dict__").get(name)
    except Exception:
        # Starlette's own base class raises NotImplementedError for what it does not know.
        return None


@lru_cache(maxsize=128)
def _is_at_hand(kind: type, name: str) -> bool:
    """Whether the class itself has the attribute, as a value or a property."""
    for base in kind.__mro__:
        if name in vars(base):
            found = vars(base)[name]
            return isinstance(found, _ASKED) or not hasattr(type(found), "__get__")
    return False
