"""The life of a client, its settings and its views, on both faces."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from pathlib import Path
from typing import Any

import pytest

import drift_async
import drift_async.sync
from drift_async import (
    ClosedError,
    CredentialsError,
    DeadlineError,
    Drift,
    InputError,
    NotFoundError,
    OAuth,
    Rate,
    Retry,
    Sandbox,
    WrongLoopError,
)
from drift_async.core.client import BaseClient

pytestmark = pytest.mark.anyio

FACES = [drift_async.Drift, drift_async.sync.Drift]
TOKEN = "planted-token-4711"


async def test_a_client_that_is_not_open_says_so(box: Sandbox) -> None:
    drift = Drift(box.token, base_url=box.url)
    with pytest.raises(ClosedError) as caught:
        await drift.users.get(1)
    assert caught.value.applied is False
    async with drift:
        await drift.users.all().first()
    with pytest.raises(ClosedError):
        await drift.users.all().first()
    assert len(box.seen) == 1


async def test_a_client_opens_and_closes_any_number_of_times(make: Any, box: Sandbox) -> None:
    drift = make(box.token, base_url=box.url)
    for _ in range(3):
        await drift.open()
        await drift.open()
        assert await drift.users.all().first() is not None
        await drift.close()
        await drift.close()


async def test_one_task_may_close_what_another_opened(make: Any, box: Sandbox) -> None:
    drift = make(box.token, base_url=box.url)
    await asyncio.create_task(drift.open())
    assert await drift.users.all().first() is not None
    await asyncio.create_task(drift.close())


def test_a_second_loop_has_to_open_it_anew(loopback: str) -> None:
    drift = Drift("token", base_url=loopback)

    async def use() -> None:
        await drift.users.get(1)

    with asyncio.Runner() as first:
        first.run(drift.open())
        with asyncio.Runner() as second, pytest.raises(WrongLoopError):
            second.run(use())
        with asyncio.Runner() as second, pytest.raises(WrongLoopError):
            second.run(drift.open())
        first.run(drift.close())
    with asyncio.Runner() as second:
        second.run(drift.open())
        second.run(drift.close())


@pytest.mark.parametrize("face", FACES)
def test_a_client_from_the_environment(face: Any) -> None:
    env = {"DRIFT_TOKEN": "from-env", "DRIFT_BASE_URL": "https://drift.example/api/"}
    assert "https://drift.example/api closed" in repr(face.from_env(env))
    assert "https://driftapi.com" in repr(face.from_env({"DRIFT_TOKEN": "x"}))
    assert "https://other.example" in repr(face.from_env(env, base_url="https://other.example"))


@pytest.mark.parametrize(
    ("env", "hint"),
    [
        ({}, "set DRIFT_TOKEN"),
        ({"DRIFT_TOKEN": ""}, "set DRIFT_TOKEN"),
        ({"DRIFT_TOKEN_FILE": "/nonexistent/token"}, "cannot be read"),
        ({"DRIFT_TOKEN_FILE": "empty"}, "is empty"),
    ],
)
async def test_a_missing_token_is_told_when_the_client_is_opened(
    env: dict[str, str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(CredentialsError, match=hint) as caught:
        await Drift.from_env(env).open()
    assert caught.value.applied is False
    with pytest.raises(CredentialsError, match=hint):
        await asyncio.to_thread(drift_async.sync.Drift.from_env(env).users.get, 1)


async def test_the_token_of_a_file_is_used(make: Any, box: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(box.token + "\n")
    drift = Drift.from_env({"DRIFT_TOKEN_FILE": str(file), "DRIFT_BASE_URL": box.url})
    async with drift:
        assert await drift.users.all().first() is not None


async def test_a_view_has_settings_of_its_own_and_shares_the_rest(make: Any, box: Sandbox) -> None:
    async with make(box.token, base_url=box.url) as drift:
        view = drift.with_options(timeout=0.2, retry=Retry(attempts=1))
        box.fail("users.get", delay=30)
        with pytest.raises(DeadlineError) as caught:
            await view.users.get(228_224)
        assert (caught.value.attempts, caught.value.applied) == (1, None)
        for act in (view.open, view.close):
            with pytest.raises(ClosedError, match="view"):
                await act()
        assert await drift.users.get(228_224) == await view.users.get(228_224)
    with pytest.raises(ClosedError):
        await view.users.get(228_224)


async def test_the_budget_is_shared_by_client_and_views(box: Sandbox) -> None:
    async with Drift(box.token, base_url=box.url, rate=Rate(20, burst=2)) as drift:
        view, loop = drift.with_options(timeout=5), asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(one.users.get(228_224) for one in (drift, view) * 3))
        assert loop.time() - began >= 4 / 20
        assert drift.rate.per_second == 20
        assert drift.rate.waiting == 0


async def test_a_turn_that_does_not_come_in_time_is_a_deadline_and_nothing_was_sent(
    make: Any, box: Sandbox
) -> None:
    async with make(box.token, base_url=box.url, rate=Rate(0.1), timeout=0.1) as drift:
        await drift.users.get(228_224)
        with pytest.raises(DeadlineError) as caught:
            await drift.users.get(228_224)
    assert (caught.value.applied, caught.value.attempts) == (False, 0)
    assert len(box.seen) == 1


async def test_a_refusal_pauses_everybody_for_as_long_as_the_server_says(box: Sandbox) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        pace = drift._caller.state.limiters["default"]._bucket
        pace.next = pace.paused_until = pace._theoretical = float("-inf")

    async with Drift(box.token, base_url=box.url) as drift:
        drift._caller.state.sleep = sleep
        box.fail("users.get", status=429, headers={"Retry-After": "7"})
        await drift.users.get(228_224)
    assert slept == [7.0]


async def test_request_calls_what_is_not_wrapped(drift: Any, box: Sandbox) -> None:
    reply = await drift.request("GET", "/users", params={"userId": [228_224, 228_225]})
    assert sorted(reply["data"]) == ["228224", "228225"]
    made = await drift.request(
        "POST", "/contacts", json={"attributes": {"email": "a@example.com", "seats": 3}}
    )
    assert made["data"]["attributes"]["seats"] == 3
    assert await drift.request("DELETE", f"/contacts/{made['data']['id']}") == {
        "result": "OK",
        "ok": True,
    }
    with pytest.raises(NotFoundError, match=r"^GET /contacts/1: 404 not_found"):
        await drift.request("GET", "/contacts/1")
    assert box.seen[0].raw_path == "/users?userId=228224&userId=228225"


@pytest.mark.parametrize(
    ("effect", "requests"), [(None, 1), ("once", 1), ("idempotent", 3), ("safe", 3)]
)
async def test_request_repeats_only_what_is_said_to_be_repeatable(
    make: Any, box: Sandbox, effect: Any, requests: int
) -> None:
    async with make(box.token, base_url=box.url, retry=Retry(base=0)) as drift:
        box.fail("contacts.create", cut="before", times=None)
        with pytest.raises(drift_async.DriftError):
            await drift.request("POST", "/contacts", json={}, effect=effect)
    assert len(box.seen) == requests


@pytest.mark.parametrize("face", FACES)
def test_the_repr_shows_which_face_it_is_and_no_secret(face: Any) -> None:
    drift = face(TOKEN, proxy="http://user:proxy-secret@127.0.0.1:1")
    assert face.__module__ in repr(drift)
    for shown in (repr(drift), str(drift), f"{drift}", repr(drift.contacts)):
        assert TOKEN not in shown
        assert "proxy-secret" not in shown


def test_a_client_has_no_truth_in_globals() -> None:
    one, other = Drift("a"), Drift("b")
    assert one.contacts is not other.contacts
    assert one._caller.state is not other._caller.state


def test_every_public_method_is_documented() -> None:
    groups = [kind for kind in Drift.__annotations__ if not kind.startswith("_")]
    drift, oauth = Drift("token"), OAuth("id", "secret")
    for owner in [drift, oauth, *(getattr(drift, name) for name in groups)]:
        for name, member in inspect.getmembers(type(owner)):
            if callable(member) and not name.startswith("_"):
                doc = inspect.getdoc(member) or ""
                assert doc, f"{type(owner).__name__}.{name}"
                if owner is not drift and not (name == "from_env" or hasattr(BaseClient, name)):
                    assert "https://devdocs.drift.com/docs/" in doc, (
                        f"{type(owner).__name__}.{name}"
                    )


async def test_many_calls_at_once_use_at_most_the_allowed_connections(box: Sandbox) -> None:
    drift = Drift(box.token, base_url=box.url, max_connections=4)
    async with drift:
        await asyncio.gather(*(drift.users.get(228_224) for _ in range(40)))
        session = drift._caller.state.session
        assert session is not None
        connector = session._http.connector
        assert connector is not None
        assert sum(map(len, connector._conns.values())) <= 4


@pytest.mark.parametrize("face", FACES)
def test_a_context_that_checks_nothing_is_refused_but_by_a_frightening_name(face: Any) -> None:
    blind = ssl.create_default_context()
    blind.check_hostname = False
    by_name = ssl.create_default_context()
    by_name.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    for context in (blind, by_name, True, "ca.pem"):
        with pytest.raises(InputError, match="tls"):
            face("t", tls=context)
    face("t", tls=ssl.create_default_context())
    face("t", tls=blind, dangerously_accept_any_certificate=True)
    with pytest.raises(InputError, match="dangerously_accept_any_certificate"):
        face("t", tls=blind, dangerously_accept_any_certificate="yes")
