"""What a notifier raises to say how a delivery failed."""

from __future__ import annotations

from holistic_asgi_monitor.model import MonitorError

__all__ = ("DeliveryError",)


class DeliveryError(MonitorError):
    """Alerts could not be delivered; `sentence` says why, goes to the log, and holds no secret.

    Any exception has the same alerts brought again, after 1, 2, 4 and at last every 60 seconds.
    This one can say more, as can any other exception with the same attributes:

    - `retry_after`: seconds to wait instead, at most 300;
    - `permanent`: the same message will fail again, so it is tried when what there is to say has
      changed, else after an hour;
    - `ambiguous`: the message may have arrived, so it is tried once more, and then not before
      two minutes have passed or another message has arrived.
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
