"""The response of a request that is settled after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from keytally._settle import Sent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keytally._charges import Decision, Record


class Watch:
    """What an integration saw of a response, until it finishes the record of the request once."""

    __slots__ = (
        "_headers",
        "_record",
        "disconnected",
        "is_complete",
        "is_unreadable",
        "size",
        "status",
        "unsent_status",
    )

    def __init__(self, record: Record) -> None:
        self._record: Record | None = record
        self._headers: Callable[[], list[tuple[str, str]]] = list
        self.status: int | None = None
        self.size = 0
        self.is_complete = False
        # Whether the client closed the connection. Exceptions that follow are a consequence.
        self.disconnected = False
        # Whether reading the body of the request failed, because the client closed the connection
        # or sent an invalid body. The error response that follows is a consequence.
        self.is_unreadable = False
        # The status of a response that began after that, or after the client had left.
        self.unsent_status: int | None = None

    def start(self, status: int, headers: Callable[[], list[tuple[str, str]]]) -> None:
        """Record the head of the response."""
        if self.disconnected or self.is_unreadable:
            self.unsent_status = status
        else:
            self.status, self._headers = status, headers

    @property
    def is_pending(self) -> bool:
        """Whether a charge of the request is settled after the response."""
        return self._record is not None and self._record.has_pending

    @property
    def is_finished(self) -> bool:
        """Whether the charges of the request were settled."""
        return self._record is None

    def finish(self, exception: BaseException | None = None) -> None:
        """Settle the charges of the request, unless that was done."""
        record, self._record = self._record, None
        if record is not None:
            for pending in record.take_pending():
                sent = self._sent(pending.decision, exception)
                pending.settlement.finish(pending.decision, pending.request, sent)

    async def finish_async(self, exception: BaseException | None = None) -> None:
        """Settle the charges of the request as ``finish`` does, and await async functions."""
        record, self._record = self._record, None
        canceled: BaseException | None = None
        for pending in () if record is None else record.take_pending():
            sent = self._sent(pending.decision, exception)
            try:
                await pending.settlement.finish_async(pending.decision, pending.request, sent)
            except BaseException as error:
                # A task that is canceled settles the charges after this one, too.
                canceled = error
        if canceled is not None:
            raise canceled

    def _sent(self, decision: Decision, exception: BaseException | None) -> Sent:
        if self.disconnected or self.is_unreadable or not isinstance(exception, Exception):
            exception = None
        status = 500 if self.status is None and exception is not None else self.status
        sent = Sent(
            status=status,
            headers=self._headers(),
            bytes=self.size,
            is_complete=self.is_complete and not self.is_unreadable,
            exception=exception,
            cost=decision.costs.own,
            costs=decision.costs.of_groups,
        )
        sent._unsent_status = self.unsent_status
        return sent


class Input:
    """The body of a WSGI request that reports to a watch if it cannot be read."""

    def __init__(self, stream: Any, watch: Watch) -> None:  # noqa: ANN401
        self._stream = stream
        self._watch = watch

    def read(self, *size: int) -> Any:  # noqa: ANN401
        """Return bytes of the body."""
        return self._call(self._stream.read, *size)

    def readline(self, *size: int) -> Any:  # noqa: ANN401
        """Return a line of the body."""
        return self._call(self._stream.readline, *size)

    def readlines(self, *hint: int) -> Any:  # noqa: ANN401
        """Return the lines of the body."""
        return self._call(self._stream.readlines, *hint)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.readline, b"")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)

    def _call(self, function: Callable[..., Any], *arguments: int) -> Any:  # noqa: ANN401
        try:
            return function(*arguments)
        except Exception:
            self._watch.is_unreadable = True
            raise


class Body:
    """The body of a response that settles the charges at its end, for WSGI servers.

    Servers iterate it and call ``close``, as PEP 3333 requires.
    """

    def __init__(self, parts: Iterable[Any], watch: Watch) -> None:
        self._parts = parts
        self._iterator = iter(parts)
        self._watch = watch

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> Any:  # noqa: ANN401
        try:
            part = next(self._iterator)
        except StopIteration:
            self._watch.is_complete = True
            self._watch.finish()
            raise
        except Exception as error:
            self._watch.finish(error)
            raise
        # Flask encodes parts that are text.
        self._watch.size += len(part.encode() if isinstance(part, str) else part)
        return part

    def close(self) -> None:
        """Settle the charges if the body was not sent to its end, and close the inner body."""
        try:
            if hasattr(self._parts, "close"):
                self._parts.close()
        finally:
            self._watch.disconnected = True
            self._watch.finish()
