"""Why a command ends without having done its work; the text is one sentence for the user."""

from __future__ import annotations

__all__ = ("CannotRunError", "WrongArgumentError")


class CannotRunError(Exception):
    """The command cannot run; the sentence says why and what to do."""


class WrongArgumentError(Exception):
    """An argument is wrong in the company of the others; the sentence says which."""
