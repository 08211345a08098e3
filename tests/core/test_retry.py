"""When to try again, and after how long: tables and properties of the pure deciders."""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drift_async import InputError, Retry
from drift_async.core.request import Effect, Failure, FailureKind, Response
from drift_async.core.retry import RetryBudget, parse_retry_after

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
EFFECTS: tuple[Effect, ...] = ("safe", "idempotent", "once")
FOR_ALL = {429, 503}
FOR_REPEATABLE = {408, 500, 502, 504}


def reply(status: int) -> Response:
    return Response(status, {}, b"")


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_list_of_statuses_is_closed(effect: Effect) -> None:
    again = {status for status in range(100, 600) if Retry().repeats(effect, reply(status))}
    assert again == (FOR_ALL if effect == "once" else FOR_ALL | FOR_REPEATABLE)


def test_refused_creates_are_repeated_only_if_wanted() -> None:
    careful = Retry(repeat_refused=False)
    assert not careful.repeats("once", reply(429))
    assert not careful.repeats("once", reply(503))
    assert careful.repeats("idempotent", reply(503))


@pytest.mark.parametrize(
    ("kind", "sent", "safe", "once"),
    [
        ("connect", False, True, True),
        ("certificate", False, False, False),
        ("stalled", False, True, True),
        ("stalled", True, True, False),
        ("lost", True, True, False),
        ("protocol", True, True, False),
        ("too_large", True, False, False),
        ("closed", False, False, False),
        ("closed", True, False, False),
    ],
)
def test_what_was_not_sent_is_always_repeated_and_doubt_only_where_it_does_no_harm(
    kind: FailureKind, sent: bool, safe: bool, once: bool
) -> None:
    failure = Failure(kind, "", sent)
    assert Retry().repeats("safe", failure) is safe
    assert Retry().repeats("idempotent", failure) is safe
    assert Retry().repeats("once", failure) is once


def decide(retry: Retry, status: int, **given: Any) -> object:
    known = {"attempts": 1, "remaining": 60.0, "retry_after": None, "jitter": 0.5} | given
    return retry.next_delay("safe", reply(status), **known)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, 0.25),
        ({"attempts": 2}, 0.5),
        ({"attempts": 3}, "attempts"),
        ({"remaining": 0.2}, "deadline"),
        ({"remaining": 0.0}, "deadline"),
        ({"retry_after": 3.0}, 3.0),
        ({"retry_after": 0.1, "jitter": 1.0}, 0.5),
        ({"retry_after": 61.0, "remaining": 100.0}, "retry_after"),
        ({"retry_after": 20.0, "remaining": 10.0}, "retry_after"),
    ],
)
def test_the_verdict_is_seconds_or_the_reason_why_not(given: dict[str, Any], verdict: Any) -> None:
    assert decide(Retry(), 500, **given) == verdict


def test_any_number_of_attempts_has_a_wait() -> None:
    assert decide(Retry(attempts=10_000), 500, attempts=9_999) == 10.0


def test_a_refusal_waits_longer_than_a_failure() -> None:
    assert decide(Retry(), 429) == 2 * 0.25


def test_a_reply_that_stands_is_not_retried() -> None:
    assert decide(Retry(), 404) == "not_retryable"


@pytest.mark.parametrize("attempt", range(1, 10))
def test_jitter_is_full_also_at_the_cap(attempt: int) -> None:
    retry, chance = Retry(attempts=99), random.Random(attempt)
    bound = min(20.0, 0.5 * 2 ** (attempt - 1))
    draws = []
    for _ in range(10_000):
        wait = decide(retry, 500, attempts=attempt, jitter=chance.random())
        assert isinstance(wait, float)
        draws.append(wait)
    assert max(draws) <= bound
    assert statistics.fmean(draws) == pytest.approx(bound / 2, rel=0.02)
    counts = [0] * 20
    for wait in draws:
        counts[min(19, int(wait / bound * 20))] += 1
    assert sum((count - 500) ** 2 / 500 for count in counts) < 43.8  # chi-square, p > 0.001


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("3", 3.0),
        (" 3 ", 3.0),
        ("1.5", 1.5),
        ("0.001", 0.001),
        ("007", 7.0),
        ("3600", 3600.0),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("0x10", None),
        (".5", None),
        ("5.", None),
        ("1,5", None),
        ("1 2", None),
        ("nan", None),
        ("inf", None),
        ("Infinity", None),
        ("99999999999", None),
        ("9" * 65, None),
        ("٣", None),
        ("soon", None),
        ("Sat, 21 Nov 2026 12:00:07 GMT", 7.0),
        ("Saturday, 21-Nov-26 12:00:07 GMT", 7.0),
        ("Sat Nov 21 12:00:07 2026", 7.0),
        ("Sat, 21 Nov 2026 13:00:07 +0100", 7.0),
        ("Sat, 21 Nov 2026 12:00:07 -0000", 7.0),
        ("Sat, 21 Nov 2026 12:00:07", 7.0),
        ("21 Nov 2026 12:00:07 GMT", 7.0),
        ("Sat, 21 Nov 2026 11:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Sat, 31 Nov 2026 12:00:07 GMT", None),
        ("Sat, 21 Nov 2026 25:00:07 GMT", None),
        ("Sat, 21 Nov 99999 12:00:07 GMT", None),
        ("Sat, 21 Foo 2026 12:00:07 GMT", None),
        ("2026-11-21T12:00:07Z", None),
        ("\x00", None),
        ("3\r\nX: y", None),
    ],
)
def test_retry_after_is_read_in_its_forms_and_nothing_else(
    header: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(header, NOW) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d .*"))
def test_no_text_makes_retry_after_fail(header: str) -> None:
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or seconds >= 0


@given(st.integers(0, 10**6))
def test_a_date_and_its_seconds_mean_the_same(seconds: int) -> None:
    moment = NOW + timedelta(seconds=seconds)
    header = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert parse_retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    "settings",
    [{"attempts": 0}, {"attempts": 1.5}, {"base": -1}, {"cap": float("nan")}, {"cap": "20"}],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Retry(**settings)
    assert caught.value.field in settings


class RetryBudgetMachine(RuleBasedStateMachine):
    """A hundred calls share a budget: each fails, retries, succeeds or gives up, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RetryBudget()
        self.left = 500
        self.spent = [0] * 100

    calls = st.integers(0, 99)

    @rule(call=calls, status=st.sampled_from([429, 503, 500, 502, 504, None]))
    def fails(self, call: int, status: int | None) -> None:
        outcome = Failure("lost", "", True) if status is None else reply(status)
        price = 5 if status in (429, 503) else 14
        assert self.budget.cost(outcome) == price
        assert self.budget.try_spend(price) is (price <= self.left)
        if price <= self.left:
            self.left -= price
            self.spent[call] = price

    @rule(call=calls)
    def succeeds(self, call: int) -> None:
        self.budget.refund(self.spent[call])
        self.left = min(500, self.left + (self.spent[call] or 1))
        self.spent[call] = 0

    @invariant()
    def the_sum_is_exact_and_within_its_bounds(self) -> None:
        assert self.budget.left == self.left
        assert 0 <= self.left <= 500


test_the_budget_is_never_over_full_nor_under_empty = RetryBudgetMachine.TestCase
