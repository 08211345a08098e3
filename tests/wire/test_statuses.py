"""Every status there is, answered to a safe, an idempotent and a once operation: a closed list."""

from __future__ import annotations

from typing import Any

import pytest

from drift_async import CallError, Rate, Retry
from drift_async.core.endpoint import Effect, Reply
from drift_async.core.rate_limit import Limiter
from drift_async.errors import reply_applied, reply_error
from drift_async.sandbox import Sandbox
from tests.support.flavours import core
from tests.support.server import Got, Server, reply

# Statuses, error, applied, and the requests of a safe, an idempotent and a once operation.
TABLE = """
100-199 APIError None 1 1 1
200-299 - - 1 1 1
300-399 APIError None 1 1 1
400     BadRequestError False 1 1 1
401     AuthenticationError False 1 1 1
402     APIError False 1 1 1
403     AuthenticationError False 1 1 1
404     NotFoundError False 1 1 1
405-407 APIError False 1 1 1
408     APIError None 3 3 1
409     ConflictError False 1 1 1
410-412 APIError False 1 1 1
413     BadRequestError False 1 1 1
414-421 APIError False 1 1 1
422     BadRequestError False 1 1 1
423-428 APIError False 1 1 1
429     RateLimitError False 3 3 3
430-499 APIError False 1 1 1
500     ServerError None 3 3 1
501     ServerError None 1 1 1
502     ServerError None 3 3 1
503     ServerError False 3 3 3
504     ServerError None 3 3 1
505-599 ServerError None 1 1 1
"""
OPERATIONS: tuple[tuple[str, Effect], ...] = (
    ("GET", "safe"),
    ("POST", "idempotent"),
    ("POST", "once"),
)


def table() -> dict[int, tuple[str, str, list[int]]]:
    """Return error, applied and requests by status."""
    found = {}
    for line in TABLE.strip().splitlines():
        statuses, error, applied, *requests = line.split()
        first, _, last = statuses.partition("-")
        for status in range(int(first), int(last or first) + 1):
            found[status] = error, applied, [int(number) for number in requests]
    return found


EXPECTED = table()


def test_the_table_has_every_status_once() -> None:
    assert list(EXPECTED) == list(range(100, 600))


def answer(_: int, got: Got) -> bytes:
    return reply(b"", f"{got.target[1:]} Status")  # 204 and 304 have none


@pytest.mark.anyio
@pytest.mark.parametrize("hundred", [200, 300, 400, 500])
async def test_every_status_on_the_wire(make: Any, hundred: int) -> None:
    seen: dict[int, tuple[str, str, list[int]]] = {}
    retry = Retry(base=0, throttled_base=0)
    async with (
        Server(answer) as server,
        make("token", base_url=server.url, retry=retry) as drift,
    ):
        for status in range(hundred, hundred + 100):
            errors, requests = set(), []
            for method, effect in OPERATIONS:
                server.got.clear()
                # Refused all the time, one limiter would pause for longer and longer.
                core(drift)._caller.site.limiters["default"] = Limiter(Rate())
                try:
                    assert await drift.request(method, f"/{status}", effect=effect) is None
                    errors.add(("-", "-"))
                except CallError as error:
                    errors.add((type(error).__name__, str(error.applied)))
                requests.append(len(server.got))
            [(name, applied)] = errors
            seen[status] = name, applied, requests
    assert seen == {status: EXPECTED[status] for status in seen}


@pytest.mark.parametrize("status", range(100, 200))
def test_an_interim_status_settles_nothing(status: int) -> None:
    error, applied, requests = EXPECTED[status]
    assert type(reply_error(status, {}, b"", operation="GET /x")).__name__ == error
    assert str(reply_applied(status)) == applied
    for (_, effect), count in zip(OPERATIONS, requests, strict=True):
        assert Retry().repeats(effect, Reply(status, {}, b"")) is (count > 1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("the token lacks the scope contact_read", "ScopeError"),
        ("the token lacks the scope user_read", "AuthenticationError"),
        ("the token has expired", "AuthenticationError"),
    ],
)
async def test_a_403_is_about_a_scope_when_it_names_that_of_the_operation(
    drift: Any, box: Sandbox, message: str, kind: str
) -> None:
    body = {"error": {"type": "authentication_error", "message": message}}
    box.fail("contacts.get", status=403, body=body)
    with pytest.raises(CallError) as caught:
        await drift.contacts.get(15_811_400_001)
    assert (type(caught.value).__name__, caught.value.applied, box.count) == (kind, False, 1)
