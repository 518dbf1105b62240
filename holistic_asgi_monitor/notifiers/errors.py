"""What a notifier raises so that its alerts are brought again, and when."""

from __future__ import annotations

from holistic_asgi_monitor.model import MonitorError

__all__ = ("DeliveryError",)


class DeliveryError(MonitorError):
    """An alert could not be delivered; `sentence` says why and holds no secret.

    `retry_after` is the wait in seconds that the channel asks for. `permanent` says that trying
    the same again is useless (a channel that does not exist). `ambiguous` says that it may have
    arrived all the same (no answer in time), so it is tried only once more.
    """

    def __init__(
        self,
        sentence: str,
        *,
        retry_after: float | None = None,
        permanent: bool = False,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        self.permanent = permanent
        self.ambiguous = ambiguous
