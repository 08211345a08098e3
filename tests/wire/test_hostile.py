"""Replies, ids and surroundings that mean no good: nothing goes elsewhere, nothing has no end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, strategies as st
from yarl import URL

from drift_async import (
    APIError,
    CursorError,
    DecodeError,
    InputError,
    Retry,
)
from drift_async.resources import accounts, scim
from drift_async.sandbox import Sandbox
from tests.support.server import Server, reply

TOKEN = "drift-secret-token-0123456789abcdefghijklmnop"
EMAIL = "ada.lovelace@private.example"


@asynccontextmanager
async def opened(make: Callable[..., Any], url: str, **settings: Any) -> AsyncIterator[Any]:
    retry = Retry(base=0, throttled_base=0)
    async with make(TOKEN, base_url=url, **{"retry": retry, **settings}) as drift:
        yield drift


# -- the address of the next page

# {q} is the row's own cursor, {k} the name of its (first) key, EVIL a server that must stay alone.
FOLLOWED = (
    "http://EVIL/x?{q}",
    "http://EVIL/conversations/list?{q}",
    "https://EVIL/x?{q}",
    "//EVIL/x?{q}",
    "///EVIL/x?{q}",
    "@EVIL/x?{q}",
    ".EVIL/x?{q}",
    ":80@EVIL/?{q}",
    "\\\\EVIL\\x?{q}",
    "http://user:pw@EVIL/?{q}",
    "http://EVIL\\@driftapi.com/?{q}",
    "javascript:fetch('//EVIL')?{q}",
    "file:///etc/passwd?{q}",
    "/users/list?{q}",
    "/../../users/list?{q}",
    "%2e%2e/users/list?{q}",
    "?{q}",
    "/x?limit=9&email=other%40x.example&statusId=9&access_token=x&{q}&url=http://EVIL",
    "/x?{q}#//EVIL",
)
REFUSED = (
    "",
    "http://EVIL/",
    "/x",
    "/x?",
    "/x?url=http://EVIL",
    "/x?{q}&{q}",
    "/x?{k}=",
    "/x?{k}",
    "/x?{k}=" + "a" * 5000,
    "/x?{k}=%00",
    "/x?{k}=a%0d%0aHost:%20EVIL",
    "/x?{k}=%ff%fe",
    "/x?{k}=%C3%A9",
    "/x?{k}=%ED%A0%80",
    "/x#?{q}",
    "/x%3F{q}",
    "/x?%7B{q}%7D",
    "/x?" + "a=1&" * 200 + "{q}",
    "http://[EVIL/x?{q}",
)
NOT_TEXT = (5, True, 1.5, ["/x?{q}"], {"href": "/x?{q}"})
CONTROL = ("\n//EVIL/x?{q}", "\t//EVIL/x?{q}", "//EV\nIL/x?{q}")

# call, arguments, operation, cursor, its first key, first and second request, a page with `next`
Page = Callable[[Any], dict[str, Any]]
STYLES: Mapping[str, tuple[str, dict[str, Any], str, str, list[str], Page]] = {
    "links": (
        "conversations.all",
        {},
        "page_token=abc",
        "page_token",
        ["/conversations/list?limit=100", "/conversations/list?page_token=abc"],
        lambda following: {"body": {"data": [], "links": {"next": following}}},
    ),
    "next_url": (
        "accounts.all",
        {},
        "index=5&size=7",
        "size=7&index",
        ["/accounts?index=0&size=65", "/accounts?index=5&size=7"],
        lambda following: {"body": {"data": {"accounts": [], "total": 9, "next": following}}},
    ),
    "link_header": (
        "contacts.find_by_email",
        {"email": "a@b.example", "limit": 200},
        "cursor=abc",
        "cursor",
        [
            "/contacts?email=a%40b.example&limit=100",
            "/contacts?email=a%40b.example&limit=100&cursor=abc",
        ],
        lambda following: {
            "body": {"data": []},
            "headers": {"Link": f"</x?cursor=0>; rel='prev', <{following}>; rel='next'"},
        },
    ),
}
LAST: dict[str, Any] = {"body": {"data": [], "links": {}}}
LASTS: dict[str, dict[str, Any]] = {"next_url": {"body": {"data": {"accounts": []}}}}


async def walk(drift: Any, call: str, kwargs: dict[str, Any]) -> Any:
    result = attrgetter(call)(drift)(**kwargs)
    return await (result.collect() if hasattr(result, "collect") else result)


def cases() -> list[Any]:
    found: list[tuple[str, Any, bool]] = []
    for style in STYLES:
        spoken = style == "link_header"
        found += [(style, address, True) for address in (*FOLLOWED, *(() if spoken else CONTROL))]
        found += [(style, wrong, False) for wrong in (*REFUSED, *(() if spoken else NOT_TEXT))]
    for index in ("-1", "%2B5", "5.0", "1e3", "abc", "%D9%A3", "9" * 30, "0x1", "1_0"):
        found.append(("next_url", f"/accounts?size=7&index={index}", False))
    found.append(("next_url", "/accounts?index=5", False))
    return [pytest.param(*case, id=f"{case[0]}-{case[1]!r:.40}") for case in found]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("link", "is_end"),
    [
        ("</contacts?email=b@nextcorp.com&cursor=0>; rel='prev'", True),
        ("</next?cursor=0>; rel='prev'; title='the next'", True),
        ("</contacts?cursor=1; rel='next'", False),
        ("</contacts?cursor=1>; rel='last next'", False),
    ],
)
async def test_a_link_header_that_has_no_next_is_the_end(
    drift: Any, box: Sandbox, link: str, is_end: bool
) -> None:
    box.fail("contacts.find_by_email", status=200, body={"data": []}, headers={"Link": link})
    if is_end:
        assert await drift.contacts.find_by_email("a@b.example") == []
    else:
        with pytest.raises(CursorError):
            await drift.contacts.find_by_email("a@b.example")


@pytest.mark.anyio
@pytest.mark.parametrize(("style", "address", "followed"), cases())
async def test_of_a_next_address_only_the_cursor_is_used(
    make: Any, style: str, address: Any, followed: bool
) -> None:
    call, kwargs, cursor, key, requests, page = STYLES[style]
    async with (
        Server(reply()) as evil,
        Sandbox(token=TOKEN) as box,
        opened(make, box.url, max_pages=5) as drift,
    ):
        if isinstance(address, str):
            where = f"127.0.0.1:{evil.port}"
            address = address.replace("{q}", cursor).replace("{k}", key).replace("EVIL", where)
        box.fail(call, status=200, **page(address))
        box.fail(call, status=200, **LASTS.get(style, LAST))
        if followed:
            await walk(drift, call, kwargs)
        else:
            with pytest.raises(CursorError) as caught:
                await walk(drift, call, kwargs)
            assert caught.value.applied is True
            assert len(str(caught.value)) < 300
        assert [one.raw_path for one in box.seen] == requests[: 1 + followed]
        assert {one.method for one in box.seen} == {"GET"}
        assert evil.connections == 0


OPAQUE = ("2", "http://EVIL/x", "//EVIL", "../../users/list", "?a=1&b=2#c", "%2e%2e", "a b+c", "-1")
MALFORMED: tuple[Any, ...] = ("", "a" * 5000, "\r\nHost: EVIL", "\x00", "é", "\u202e", 2, None, [])


@pytest.mark.anyio
@pytest.mark.parametrize("following", [*OPAQUE, *MALFORMED, ...])
async def test_the_next_of_messages_is_opaque_text(make: Any, following: Any) -> None:
    async with Sandbox(token=TOKEN) as box, opened(make, box.url) as drift:
        pagination = {"more": True} | ({} if following is ... else {"next": following})
        body = {"data": {"messages": []}, "pagination": pagination}
        box.fail("conversations.messages", status=200, body=body)
        box.fail("conversations.messages", status=200, body={**body, "pagination": {"more": False}})
        path = "/conversations/7/messages"
        if following in OPAQUE:
            await drift.conversations.messages(7).collect()
            wanted = [path, f"{path}?next={quote(following, safe='')}"]
        else:
            with pytest.raises(CursorError):
                await drift.conversations.messages(7).collect()
            wanted = [path]
        assert [one.raw_path for one in box.seen] == wanted


@pytest.mark.anyio
@pytest.mark.parametrize("more", ["true", 1, {}, "2"])
async def test_a_more_that_is_no_bool_is_not_taken_for_the_end(make: Any, more: Any) -> None:
    async with Sandbox(token=TOKEN) as box, opened(make, box.url) as drift:
        body = {"data": {"messages": []}, "pagination": {"more": more, "next": "2"}}
        box.fail("conversations.messages", status=200, body=body)
        with pytest.raises((CursorError, DecodeError)):
            await drift.conversations.messages(7).collect()


@pytest.mark.anyio
async def test_the_next_link_may_stand_in_a_header_of_its_own(make: Any) -> None:
    def answer(n: int, _: Any) -> bytes:
        links = b"" if n > 1 else b"Link: </p>; rel='prev'\r\nLink: </x?cursor=abc>; rel='next'\r\n"
        return reply(b'{"data": []}').replace(b"\r\n\r\n", b"\r\n" + links + b"\r\n")

    async with Server(answer) as server, opened(make, server.url) as drift:
        await drift.contacts.find_by_email("a@b.example", limit=200)
        assert [got.target.rpartition("&")[2] for got in server.got] == ["limit=100", "cursor=abc"]


@pytest.mark.anyio
@pytest.mark.parametrize("style", [*STYLES, "pagination"])
async def test_a_cursor_that_repeats_ends_the_walk_after_two_pages(make: Any, style: str) -> None:
    async with Sandbox(token=TOKEN) as box, opened(make, box.url) as drift:
        if style == "pagination":
            call, kwargs = "conversations.messages", {"conversation_id": 7}
            pagination = {"more": True, "next": "abc"}
            page: Any = {"body": {"data": {"messages": []}, "pagination": pagination}}
        else:
            call, kwargs, cursor, *_, make_page = STYLES[style]
            page = make_page(f"/x?{cursor}")
        box.fail(call, status=200, **page, times=None)
        with pytest.raises(CursorError, match="repeats") as caught:
            await walk(drift, call, kwargs)
        assert caught.value.applied is True
        assert len(box.seen) == 2


@pytest.mark.anyio
async def test_a_circle_of_cursors_ends_too(make: Any) -> None:
    async with Sandbox(token=TOKEN) as box, opened(make, box.url) as drift:
        for n in (1, 2, 3, 1, 2, 3):
            body = {"data": [], "links": {"next": f"/x?page_token={n}"}}
            box.fail("conversations.all", status=200, body=body)
        with pytest.raises(CursorError, match="repeats"):
            await drift.conversations.all().collect()
        assert len(box.seen) == 4


@pytest.mark.anyio
async def test_an_endless_list_stops_at_max_pages(make: Any) -> None:
    async with Sandbox(token=TOKEN) as box, opened(make, box.url, max_pages=3) as drift:
        for n in range(6):
            following = {"next": f"/x?page_token={n}"}
            box.fail("conversations.all", status=200, body={"data": [], "links": following})
        steps = aiter(drift.conversations.all().pages())
        for _ in range(3):
            await anext(steps)
        with pytest.raises(CursorError, match="pages"):
            await anext(steps)
        assert len(box.seen) <= 4  # one may have been fetched ahead


WALKS: Mapping[str, dict[str, Any]] = {
    "accounts.all": {"page_size": 3},
    "conversations.all": {"page_size": 7, "status": ["open", "closed"]},
    "conversations.messages": {"conversation_id": 4_300_000_001},
    "scim.all": {"page_size": 1},
}


def mark(item: Any) -> Any:
    return getattr(item, "id", None) or item.account_id


@pytest.mark.anyio
@pytest.mark.parametrize("call", WALKS)
async def test_a_walk_stopped_after_any_page_goes_on_there(
    drift: Any, box: Sandbox, call: str
) -> None:
    start = attrgetter(call)(drift)
    whole = [mark(item) for item in await start(**WALKS[call]).collect()]
    assert len(whole) == len(set(whole)) > 3
    stop, ended = 1, False
    while not ended:
        seen, count = [], 0
        async for page in start(**WALKS[call]).pages():
            seen += [mark(item) for item in page.items]
            count += 1
            saved, ended = page.next, page.is_last
            if count == stop:
                break
        if ended:
            before = box.count
            assert await start(**WALKS[call], resume=saved).collect() == []
            assert await start(**WALKS[call], resume=saved).first() is None
            assert box.count == before
        else:
            seen += [mark(i) for i in await start(**WALKS[call], resume=saved).collect()]
        assert seen == whole
        stop += 1
    assert stop > 3


OTHERS = {
    "accounts.all": "/conversations/list?page_token=abc",
    "conversations.all": "/accounts?index=5&size=5",
    "conversations.messages": "/scim/Users?startIndex=3",
    "scim.all": "/conversations/{conversation_id}/messages?next=2",
}
GARBAGE: tuple[Any, ...] = ("", "x", "#end", "?", 5, b"/accounts#end", ["/accounts#end"], "\ud800")
GARBAGE += ("/accounts?index=5", "/accounts?index=5&size=5&x=1", "/accounts?index=-1&size=5")
GARBAGE += ("/accounts?index=5&size=5\n", "/accounts?index=５&size=5", "/accounts?index=&size=")
GARBAGE += ("/accounts?size=5&index=5&size=5", "http://x/accounts?index=5&size=5", "/accounts#End")
GARBAGE += ("/conversations/list?page_token=" + "a" * 9000, "/conversations/list?page_token=%0a")
GARBAGE += ("/users/list?page_token=abc", "/users/list#end", "/scim/Users?startIndex=1.5")


@pytest.mark.anyio
@pytest.mark.parametrize("call", WALKS)
async def test_a_position_that_is_not_of_this_list_is_refused_unsent(
    drift: Any, box: Sandbox, call: str
) -> None:
    for position in (*GARBAGE, OTHERS[call]):
        with pytest.raises(CursorError) as caught:
            await attrgetter(call)(drift)(**WALKS[call], resume=position).collect()
        assert caught.value.applied is False, position
    assert box.seen == []


@pytest.mark.anyio
async def test_a_position_in_another_conversation_is_refused(drift: Any, box: Sandbox) -> None:
    page = await anext(aiter(drift.conversations.messages(4_300_000_001).pages()))
    with pytest.raises(CursorError):
        await drift.conversations.messages(4_300_000_002, resume=page.next).collect()
    assert [one for one in box.seen if "4300000002" in one.raw_path] == []


# -- ids in paths

IDS = (
    *("..", ".", "", "../users/list", "..%2f..", "%2e%2e", "%2E", "a/../b", "/", "//evil.example"),
    *("a/b", "a\\b", "a?b=c", "a#b", "a;b", "a:b", "@evil.example", "a b", " ", "+", "%", "%zz"),
    *("%00", "\x00", "a\r\nHost: evil", "\t", "\x7f", "\x85", "\ud800", "a\udfff", "é", "☂" * 341),
    *(
        "☂" * 342,
        "a" * 1024,
        "a" * 1025,
        "\u2028",
        "\u202e",
        "\ufeff",
        "１２",
        "~-_.",
        "...",
        "null",
    ),
    *("http://evil.example/", "{id}", "[]", "a&b=c", "%C3%28", "\u0130", "e\u0301", "𝟙"),
)
REFUSED_IDS = {"..", ".", "", "\x00", "a\r\nHost: evil", "\t", "\x7f", "\x85", "\ud800", "a\udfff"}
REFUSED_IDS |= {"☂" * 342, "a" * 1025}


@pytest.mark.anyio
async def test_a_text_id_is_one_segment_at_the_server_or_refused(drift: Any, box: Sandbox) -> None:
    for path, call in (
        ("/accounts/", drift.accounts.get),
        ("/accounts/", drift.accounts.delete),
        ("/scim/Users/", drift.scim.get),
        ("/scim/Users/", drift.scim.delete),
    ):
        for text in IDS:
            box.forget()
            if text in REFUSED_IDS:
                with pytest.raises(InputError):
                    await call(text)
                assert box.seen == []
                continue
            with pytest.raises(APIError):
                await call(text)
            (one,) = box.seen
            start, _, last = one.raw_path.rpartition("/")
            assert (start + "/", unquote(last, errors="strict")) == (path, text)
            assert last.isascii()
            assert not set("?#;\\ ") & set(last)


@given(st.text(st.characters(exclude_categories=())) | st.text("./\\%2eE?#@: \ud800\x00"))
def test_any_text_is_one_segment_of_the_url_or_refused(text: str) -> None:
    for endpoint, name, path in (
        (accounts.GET, "account_id", "/accounts/"),
        (scim.UPDATE, "user_id", "/scim/Users/"),
    ):
        try:
            target = endpoint.target({name: text})
        except InputError:
            continue
        start, _, last = target.rpartition("/")
        assert (start + "/", unquote(last, errors="strict")) == (path, text)
        assert URL(f"http://localhost{target}", encoded=True).raw_path_qs == target
        assert last not in ("", ".", "..")


# -- redirects, surroundings, cookies


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_but_told(make: Any, status: int) -> None:
    async with (
        Server(reply(b"{}")) as evil,
        Sandbox(token=TOKEN) as box,
        opened(make, box.url) as drift,
    ):
        told = {
            f"{evil.url}/secret/path?q=secret": evil.url,
            f"http://user:secret@127.0.0.1:{evil.port}/": evil.url,
            f"//127.0.0.1:{evil.port}/": f"127.0.0.1:{evil.port}",
            "https://evil.example/x": "https://evil.example",
            "/users/list": "",
            f"{box.url}/users/list": "",
            "file:///etc/passwd": "file:",
            "http://[": "",
            "": "",
        }
        for location, origin in told.items():
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                box.forget()
                box.fail("*", status=status, headers={"Location": location})
                with pytest.raises(APIError) as caught:
                    await drift.request(method, "/x", json={"a": 1}, effect="idempotent")
                error = caught.value
                assert (type(error), error.status, error.applied) == (APIError, status, None)
                assert (error.reason, len(box.seen)) == ("not_retryable", 1)
                assert "redirect" in error.message
                assert origin in error.message
                assert "secret" not in str(error)
                if location.startswith("file:"):
                    assert "same origin" not in error.message
        assert evil.connections == 0


@pytest.mark.anyio
async def test_proxies_and_netrc_of_the_environment_are_ignored(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login evil password evil\ndefault login evil password e\n")
    netrc.chmod(0o600)
    async with Server(reply(b"{}")) as proxy, Sandbox(token=TOKEN) as box:
        for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with opened(make, box.url) as drift:
            await drift.users.get(228_225)
        assert proxy.connections == 0
        (one,) = box.seen
        given = [value for name, value in one.headers if name.lower() == "authorization"]
        assert given == [f"Bearer {TOKEN}"]


@pytest.mark.anyio
async def test_a_proxy_is_used_when_asked_for(make: Any) -> None:
    async with (
        Server(reply(b'{"data": {"id": 7}}')) as proxy,
        opened(make, "http://127.0.0.1:9", proxy=proxy.url) as drift,
    ):
        assert (await drift.users.get(7)).id == 7
        assert [got.target for got in proxy.got] == ["http://127.0.0.1:9/users/7"]


@pytest.mark.anyio
async def test_a_cookie_is_never_given_back(make: Any) -> None:
    cookie = "session=evil; Path=/; Domain=127.0.0.1"
    answer = reply(b'{"data": {"id": 7}}', Set_Cookie=cookie)
    async with Server(answer) as server, opened(make, server.url) as drift:
        for _ in range(3):
            await drift.users.get(7)
        assert len(server.got) == 3
        assert all("cookie" not in got.headers for got in server.got)
