"""`Store`: the rows that calls made or changed, laid over the seeded ones.

Rows are never changed in place; a handler makes a new row and puts it back.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, Final

import attrs

from .seed import (
    CONTACT_ID,
    CONVERSATION_ID,
    CREATED,
    KEY_CYCLE,
    MESSAGE_ID,
    STATUSES,
    USER_ID,
    Seed,
)
from .types import Json

SCIM_USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
TIMES: Final = frozenset({"start_date", "last_active", "last_contacted"})


def _kind(name: str, value: Any) -> str:
    if name in TIMES:
        return "DATETIME"
    if isinstance(value, bool):
        return "BOOLEAN"
    return "NUMERIC" if isinstance(value, int | float) else "STRING"


class Contacts:
    """Contacts by id, e-mail and external id; ids rise with the time of creation."""

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._own: dict[int, Json] = {}
        self._gone: set[int] = set()
        self._emails: defaultdict[str, set[int]] = defaultdict(set)
        self._externals: defaultdict[str, set[int]] = defaultdict(set)
        self.next_id = CONTACT_ID + CREATED
        self.kinds: dict[str, str] = {}
        for n in range(min(seed.contacts, KEY_CYCLE)):
            self._note_keys(seed.contact(n))

    def _note_keys(self, row: Json) -> None:
        for name, value in row["attributes"].items():
            if not name.startswith("_") and not isinstance(value, dict | list):
                self.kinds.setdefault(name, _kind(name, value))

    def _index(self, row: Json) -> Iterator[tuple[defaultdict[str, set[int]], str]]:
        attributes = row["attributes"]
        yield self._emails, attributes["email"].lower()
        if "externalId" in attributes:
            yield self._externals, str(attributes["externalId"])

    def get(self, contact_id: int) -> Json | None:
        """Return the contact, or None if it does not exist or was deleted."""
        if contact_id in self._own:
            return self._own[contact_id]
        n = contact_id - CONTACT_ID
        if contact_id in self._gone or not 0 <= n < self._seed.contacts:
            return None
        return self._seed.contact(n)

    def put(self, row: Json) -> None:
        """Add the contact, or replace the one with its id."""
        self._forget(row["id"])
        self._own[row["id"]] = row
        self.next_id = max(self.next_id, row["id"] + 1)
        for index, key in self._index(row):
            index[key].add(row["id"])
        self._note_keys(row)

    def drop(self, contact_id: int) -> None:
        """Delete the contact; its e-mail and external id become free."""
        self._forget(contact_id)
        self._gone.add(contact_id)

    def _forget(self, contact_id: int) -> None:
        old = self._own.pop(contact_id, None)
        for index, key in self._index(old) if old else ():
            index[key].discard(contact_id)

    def _found(self, own: set[int], seeded: int | None) -> list[int]:
        ids = set(own)
        if seeded is not None:
            contact_id = CONTACT_ID + seeded
            if contact_id not in self._own and contact_id not in self._gone:
                ids.add(contact_id)
        return sorted(ids)

    def by_email(self, email: str) -> list[int]:
        """Return the ids of the contacts with this address in any case, first-created first."""
        email = email.lower()
        return self._found(self._emails.get(email, set()), self._seed.contact_by_email(email))

    def by_external_id(self, external_id: str) -> list[int]:
        """Return the ids of the contacts with this external id; at most one."""
        own = self._externals.get(external_id, set())
        return self._found(own, self._seed.contact_by_external_id(external_id))

    def after(self, contact_id: int) -> Iterator[int]:
        """Yield the ids of all contacts above `contact_id`, first-created first."""
        start = CONTACT_ID
        for i in range(max(start, contact_id + 1), start + self._seed.contacts):
            if i not in self._gone:
                yield i
        for i in range(max(start + CREATED, contact_id + 1), self.next_id):
            if i in self._own:
                yield i


class Conversations:
    """Conversations in the order of the listing, and their messages."""

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._own: dict[int, Json] = {}
        self._gone: set[int] = set()
        self._order: list[tuple[int, int]] = []  # (-updatedAt, id) of the rows in _own
        self._messages: dict[int, list[Json]] = {}
        full, rest = divmod(seed.conversations, len(STATUSES))
        self.counts = Counter(dict.fromkeys(STATUSES, 0))
        for i, status in enumerate(STATUSES):
            self.counts[status] += full + (i < rest)
        self.next_id = CONVERSATION_ID + CREATED
        self.next_message_id = MESSAGE_ID + CREATED

    def get(self, conversation_id: int) -> Json | None:
        """Return the conversation, or None."""
        if conversation_id in self._own:
            return self._own[conversation_id]
        n = conversation_id - CONVERSATION_ID
        if conversation_id in self._gone or not 0 <= n < self._seed.conversations:
            return None
        return self._seed.conversation(n)

    def put(self, row: Json) -> None:
        """Add the conversation, or replace the one with its id."""
        self._forget(row["id"])
        self._own[row["id"]] = row
        insort(self._order, (-row["updatedAt"], row["id"]))
        self.counts[row["status"]] += 1
        self.next_id = max(self.next_id, row["id"] + 1)

    def drop(self, conversation_id: int) -> None:
        """Delete the conversation with its messages."""
        self._forget(conversation_id)
        self._messages.pop(conversation_id, None)
        self._gone.add(conversation_id)

    def _forget(self, conversation_id: int) -> None:
        if old := self.get(conversation_id):
            self.counts[old["status"]] -= 1
        if old := self._own.pop(conversation_id, None):
            del self._order[bisect_left(self._order, (-old["updatedAt"], conversation_id))]

    def of_contact(self, contact_id: int) -> list[int]:
        """Return the ids of the contact's conversations."""
        own = [i for i, row in self._own.items() if row["contactId"] == contact_id]
        n, every = contact_id - CONTACT_ID, max(self._seed.contacts, 1)
        if not 0 <= n < every:
            return own
        seeded = range(CONVERSATION_ID + n, CONVERSATION_ID + self._seed.conversations, every)
        return own + [i for i in seeded if i not in self._own and i not in self._gone]

    def walk(
        self,
        after: tuple[int, int] | None = None,
        statuses: Collection[str] | None = None,
        offset: int = 0,
    ) -> Iterator[int]:
        """Yield ids by `updatedAt` descending, then id, behind the (updatedAt, id) of `after`."""
        seed, start, own_start = self._seed, 0, 0
        if after is not None:
            key = (-after[0], after[1])
            numbers = range(seed.conversations)
            start = bisect_right(numbers, key, key=self._key)
            own_start = bisect_right(self._order, key)
        if not self._own and not self._gone and statuses is None:
            start, offset = start + offset, 0
        seeded = (
            self._key(n)
            for n in range(start, seed.conversations)
            if (statuses is None or STATUSES[n % 10] in statuses)
            and CONVERSATION_ID + n not in self._own
            and CONVERSATION_ID + n not in self._gone
        )
        own = (
            key
            for key in islice(self._order, own_start, None)
            if statuses is None or self._own[key[1]]["status"] in statuses
        )
        return (key[1] for key in islice(heapq.merge(seeded, own), offset, None))

    def position(self, after: tuple[int, int], statuses: Collection[str] | None) -> int:
        """Return how many rows of the walk come up to and with `after`."""
        key = (-after[0], after[1])
        start = bisect_right(range(self._seed.conversations), key, key=self._key)
        wanted = set(STATUSES if statuses is None else statuses)
        full, rest = divmod(start, len(STATUSES))
        count = sum(full + (i < rest) for i, status in enumerate(STATUSES) if status in wanted)
        for i in (*self._own, *self._gone):
            n = i - CONVERSATION_ID
            count -= 0 <= n < start and STATUSES[n % 10] in wanted
        earlier = self._order[: bisect_right(self._order, key)]
        return count + sum(self._own[i]["status"] in wanted for _, i in earlier)

    def _key(self, n: int) -> tuple[int, int]:
        return -self._seed.updated(n), CONVERSATION_ID + n

    def message_count(self, conversation_id: int) -> int:
        """Return how many messages the conversation has."""
        own = self._messages.get(conversation_id)
        return (
            self._seed.message_count(conversation_id - CONVERSATION_ID) if own is None else len(own)
        )

    def messages(self, conversation_id: int, start: int = 0, stop: int | None = None) -> list[Json]:
        """Return messages `start` to `stop`, oldest first."""
        if conversation_id in self._messages:
            return self._messages[conversation_id][start:stop]
        n = conversation_id - CONVERSATION_ID
        numbers = range(self._seed.message_count(n))[start:stop]
        return [self._seed.message(n, i) for i in numbers]

    def put_messages(self, conversation_id: int, messages: list[Json]) -> None:
        """Replace the messages of the conversation."""
        self._messages[conversation_id] = messages

    def attachment(self, number: int) -> tuple[str, str, bytes] | None:
        """Return file name, media type and content of an attachment, or None."""
        found = self._seed.attachment(number)
        if found is None or found[0] in self._gone:
            return None
        return found[1], found[2], self._seed.attachment_bytes(number)


class Accounts:
    """Accounts by id and domain, first-created first; deleted ones stay readable."""

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self._own: dict[str, Json] = {}
        self._created: list[str] = []
        self._hidden: set[str] = set()
        self._domains: dict[str, str] = {}

    def get(self, account_id: str) -> Json | None:
        """Return the account, deleted or not, or None."""
        if account_id in self._own:
            return self._own[account_id]
        domain = account_id.removeprefix(f"{self._seed.org_id}_")
        n = self._seed.account_by_domain(domain) if domain != account_id else None
        return None if n is None else self._seed.account(n)

    def by_domain(self, domain: str) -> Json | None:
        """Return the account with this domain, deleted or not, or None."""
        domain = domain.lower()
        if domain in self._domains:
            return self._own[self._domains[domain]]
        n = self._seed.account_by_domain(domain)
        row = None if n is None else self._seed.account(n)
        return row if row and row["accountId"] not in self._own else None

    def put(self, row: Json) -> None:
        """Add the account, or replace the one with its id."""
        account_id = row["accountId"]
        old = self.get(account_id)
        if old is None:
            self._created.append(account_id)
        elif old.get("domain"):
            self._domains.pop(old["domain"].lower(), None)
        if row.get("domain"):
            self._domains[row["domain"].lower()] = account_id
        self._own[account_id] = row
        (self._hidden.add if row["deleted"] else self._hidden.discard)(account_id)

    def total(self) -> int:
        """Return how many accounts are not deleted."""
        return self._seed.accounts + len(self._created) - len(self._hidden)

    def page(self, index: int, size: int) -> list[Json]:
        """Return `size` accounts from position `index` of those not deleted."""
        seeded = range(self._seed.accounts)
        index = min(index, self.total())  # `islice` counts to sys.maxsize only
        if not self._hidden:
            seeded, index = seeded[index:], max(0, index - len(seeded))
        rows = (self._seed.account(n)["accountId"] for n in seeded)
        ids = (i for part in (rows, self._created) for i in part if i not in self._hidden)
        return [row for i in islice(ids, index, index + size) if (row := self.get(i))]


@attrs.define
class Store:
    """All rows: the seeded ones with the changes of calls."""

    seed: Seed
    contacts: Contacts = attrs.field(init=False)
    conversations: Conversations = attrs.field(init=False)
    accounts: Accounts = attrs.field(init=False)
    users: dict[int, Json] = attrs.field(init=False)
    scim: dict[str, Json] = attrs.field(init=False)
    retired: set[str] = attrs.field(init=False, factory=set)
    """User names, in lower case, of users that were deleted."""
    retired_ids: set[int] = attrs.field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self.contacts = Contacts(self.seed)
        self.conversations = Conversations(self.seed)
        self.accounts = Accounts(self.seed)
        self.users = {USER_ID + n: self.seed.user(n) for n in range(self.seed.users)}
        people = [row for row in self.users.values() if not row["bot"]]
        self.scim = {str(row["id"]): scim_of(row) for row in people}

    def put_user(self, row: Json) -> None:
        """Replace a user, and bring its SCIM form in step."""
        self.users[row["id"]] = row
        old = self.scim.get(str(row["id"]))
        if old is not None:
            kept = {key: old[key] for key in ("roles", "locale") if key in old}
            self.scim[old["id"]] = scim_of(row) | kept

    def erase(self, email: str) -> None:
        """Delete the contacts with this address and their conversations."""
        for contact_id in self.contacts.by_email(email):
            for conversation_id in self.conversations.of_contact(contact_id):
                self.conversations.drop(conversation_id)
            self.contacts.drop(contact_id)


def scim_of(user: Json) -> Json:
    """Return the SCIM form of a user who was not provisioned by SCIM."""
    given, _, family = user["name"].partition(" ")
    role = "ADMIN" if user["role"] == "admin" else "MEMBER"
    row: Json = {
        "schemas": [SCIM_USER],
        "id": str(user["id"]),
        "userName": user["email"],
        "name": {"formatted": user["name"], "familyName": family, "givenName": given},
        "displayName": user["name"],
        "active": True,
        "emails": [{"value": user["email"], "primary": True}],
        "phoneNumbers": [{"value": user.get("phone"), "primary": True}],
        "photos": [{"value": user["avatarUrl"], "primary": True}] if "avatarUrl" in user else [{}],
        "roles": [{"value": role, "display": role, "primary": True}],
    }
    if "phone" not in user:
        row["phoneNumbers"] = [{"primary": True}]
    return row
