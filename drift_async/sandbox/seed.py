"""Seeded rows: each is a pure function of its number, made when it is asked for.

Contacts repeat their set of keys every 60 rows, conversations their status every 10.
"""

from __future__ import annotations

import json
import random
import re
import uuid
import zlib
from typing import Any, Final

import attrs

from .types import Json

CONTACT_ID: Final = 15_811_400_000
CONVERSATION_ID: Final = 4_300_000_000
MESSAGE_ID: Final = 14_331_000_000
CREATED: Final = 10**12  # ids of rows made by calls start this far above the seeded ones
USER_ID: Final = 228_224
ATTACHMENT_ID: Final = 700_000
PLAYBOOK_ID: Final = 63_500
INBOX_ID: Final = 116_983

CONTACT_TIME: Final = 1_600_000_000_000
CONVERSATION_TIME: Final = 1_700_000_000_000
USER_TIME: Final = 1_590_000_000_000
DAY: Final = 86_400_000

LONG: Final = 130  # messages of conversation number 1: three pages
KEY_CYCLE: Final = 60
STATUSES: Final = ("open",) * 5 + ("closed",) * 3 + ("pending", "bulk_sent")

_NAMES: Final = """
Zoë/zoe Noah/noah José/jose Mia/mia 美咲/misaki Søren/soren Priya/priya Łukasz/lukasz Олена/olena
Amir/amir Ines/ines
Müller/mueller Smith/smith García/garcia Øst/oest 田中/tanaka Patel/patel O'Neil/oneil
"""
_PAIRS: Final = [name.partition("/")[::2] for name in _NAMES.split()]
_FIRST: Final = _PAIRS[:11]
_LAST: Final = _PAIRS[11:]
_TEXTS: Final = (
    "<p>Hi there 👋 how can we help?</p>",
    "Do you ship to Zürich &amp; Genève?",
    "<p>Yes, we do: <b>für 12 €</b>.</p>",
    "料金を教えてください",
    "<p>Let me look that up.</p>",
    "Thanks, that's all I needed",
)
_FILES: Final = (
    ("notes.txt", "text/plain"),
    ("Übersicht.png", "image/png"),
    ("angebot.pdf", "application/pdf"),
)
_EMAIL: Final = re.compile(r"\.([0-9]{1,12})@")
_EXTERNAL: Final = re.compile(r"ext-([0-9]{1,12})-|77([0-9]{10})\Z")
_DOMAIN: Final = re.compile(r"company([0-9]{1,12})\.example\Z")


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


@attrs.frozen
class Seed:
    """The number of seeded rows of each kind, and their content."""

    org_id: int
    contacts: int
    conversations: int
    messages: int
    users: int
    accounts: int
    playbooks: int
    meetings: int
    attachment_size: int

    # contacts

    def contact(self, n: int) -> Json:
        """Return contact number `n`."""
        (first, first_slug), (last, last_slug) = _FIRST[n % 11], _LAST[n % 7]
        created = CONTACT_TIME + n * 61_000
        version = 1 + n % 90
        attributes: Json = {
            "_END_USER_VERSION": version,
            "_end_user_version": version,
            "_calculated_version": version,
            "socialProfiles": _profiles(n, first, last) if n % 20 == 3 else {},
            "email": f"{first_slug}.{last_slug}.{n}@company{n % 97}.example",
            "events": {},
            "start_date": created,
        }
        if n % 4 != 3:
            attributes |= {"name": f"{first} {last}", "first_name": first}
        if n % 30 == 7:  # the service's older pages show a bare number here
            attributes["externalId"] = 770_000_000_000 + n
        elif n % 3 != 2:
            attributes["externalId"] = f"ext-{n}-{zlib.crc32(b'%d' % n):08x}"
        if n % 2 == 0:
            attributes |= {
                "phone": f"555-{n % 900 + 100:03d}-{n % 10_000:04d}",
                "last_active": created + 86_400,
                "last_contacted": created + 172_800,
                "ip": "192.0.2.10",
                "original_ip": "192.0.2.10,198.51.100.7",
            }
        if n % 5 == 0:
            attributes |= _origin()
        if n % 10 == 0:
            attributes |= {"plan": "größer", "seats": n % 40, "newsletter": n % 20 == 0}
        return {"id": CONTACT_ID + n, "createdAt": created, "attributes": attributes}

    def contact_by_email(self, email: str) -> int | None:
        """Return the number of the contact with this (lower-case) address, or None."""
        found = _EMAIL.search(email)
        n = int(found[1]) if found else self.contacts
        return n if n < self.contacts and self.contact(n)["attributes"]["email"] == email else None

    def contact_by_external_id(self, external_id: str) -> int | None:
        """Return the number of the contact with this external id, or None."""
        found = _EXTERNAL.match(external_id)
        n = int(found[1] or found[2]) if found else self.contacts
        if n >= self.contacts:
            return None
        return n if str(self.contact(n)["attributes"].get("externalId")) == external_id else None

    # conversations: number 0 was updated last, three at a time share a time

    def updated(self, n: int) -> int:
        """Return when conversation number `n` was updated, in milliseconds."""
        return CONVERSATION_TIME - n // 3 * 60_000

    def message_count(self, n: int) -> int:
        """Return how many messages conversation number `n` has."""
        return max(self.messages, LONG) if n == 1 and self.messages else self.messages

    def conversation(self, n: int) -> Json:
        """Return conversation number `n`."""
        row: Json = {
            "status": STATUSES[n % 10],
            "participants": [] if n % 10 == 9 else [self._agent(n)],
            "contactId": CONTACT_ID + n % max(self.contacts, 1),
            "createdAt": self.updated(n) - (self.message_count(n) + 59) * 1000,
            "id": CONVERSATION_ID + n,
            "inboxId": INBOX_ID + n % 2,
            "updatedAt": self.updated(n),
        }
        if n % 2 == 0:
            row["relatedPlaybookId"] = PLAYBOOK_ID + n % max(self.playbooks, 1)
        if n % 4 == 0:
            row["conversationTags"] = [
                {"color": "0960C5", "name": "vip"},
                {"color": "7695A5", "name": "prüfen"},
            ]
        if n % 8 == 0:
            row["orgId"] = self.org_id
        return row

    def _agent(self, n: int) -> int:
        return USER_ID + (1 + n % (self.users - 1) if self.users > 1 else 0)

    def message(self, n: int, i: int) -> Json:
        """Return message `i` of conversation number `n`: bot, contact and agent take turns."""
        turn = 0 if n % 10 == 9 else i % 3
        note = turn == 2 and (n + i) % 4 == 0
        author: Json = {"id": USER_ID, "type": "user", "bot": True}
        if turn == 1:
            contact = CONTACT_ID + n % max(self.contacts, 1)
            author = {"id": contact, "type": "contact", "bot": False}
        elif turn == 2:
            author = {"id": self._agent(n), "type": "user", "bot": False}
        row: Json = {
            "id": self.message_id(n, i),
            "conversationId": CONVERSATION_ID + n,
            "body": _TEXTS[(n + i) % len(_TEXTS)],
            "author": author,
            "type": "private_note" if note else "chat",
            "createdAt": self.updated(n) - (self.message_count(n) + 59 - i) * 1000,
            "attributes": {},
        }
        if turn == 0 and n % 2 == 0:
            row["buttons"] = [
                {"label": "Yes please", "value": "Yes please", "type": "reply", "style": "primary"},
                {"label": "Nein, danke", "value": "Nein, danke", "type": "reply"},
            ]
            if n % 14 == 0:
                del row["body"]
        if turn == 1:
            location: Json = {"city": "Zürich", "country": "CH"} if n % 2 else {}
            row["context"] = {"ip": "192.0.2.20", "userAgent": "Mozilla/5.0", "location": location}
            row["orgId"] = self.org_id
        if n % 5 == 2 and i == min(1, self.message_count(n) - 1):
            row["attachments"] = [self._attachment(n)]
        return row

    def message_id(self, n: int, i: int) -> int:
        """Return the id of message `i` of conversation number `n`."""
        return MESSAGE_ID + n * max(self.messages, LONG) + i

    def _attachment(self, n: int) -> Json:
        name, kind = _FILES[n // 5 % 3]
        number = ATTACHMENT_ID + n
        url = f"https://driftapi.com/attachments/{number}/data"
        return {"id": number, "fileName": name, "mimeType": kind, "url": url}

    def attachment(self, number: int) -> tuple[int, str, str] | None:
        """Return conversation id, file name and media type of an attachment, or None."""
        n = number - ATTACHMENT_ID
        if not 0 <= n < self.conversations or n % 5 != 2 or not self.messages:
            return None
        return CONVERSATION_ID + n, *_FILES[n // 5 % 3]

    def attachment_bytes(self, number: int) -> bytes:
        """Return the content of an attachment."""
        return random.Random(number).randbytes(self.attachment_size)

    # the rest

    def account(self, n: int) -> Json:
        """Return account number `n`."""
        created = CONTACT_TIME + n * 3_600_000
        domain = f"company{n}.example"
        custom = [{"label": "Größe", "name": "size", "value": n, "type": "NUMBER"}] * (n % 2)
        return {
            "ownerId": self._agent(n),
            "name": f"{_LAST[n % 7][0]} & Söhne {n}",
            "domain": domain,
            "accountId": f"{self.org_id}_{domain}",
            "customProperties": custom,
            "deleted": False,
            "createDateTime": created,
            "updateDateTime": created + n,
            "targeted": n % 3 == 0,
        }

    def account_by_domain(self, domain: str) -> int | None:
        """Return the number of the account with this domain, or None."""
        found = _DOMAIN.match(domain)
        n = int(found[1]) if found else self.accounts
        return n if n < self.accounts and domain == f"company{n}.example" else None

    def user(self, n: int) -> Json:
        """Return user number `n`; number 0 is the org's bot."""
        (first, slug), (last, _) = _FIRST[n % 11], _LAST[n % 7]
        row: Json = {
            "id": USER_ID + n,
            "orgId": self.org_id,
            "name": f"{first} {last}" if n else "Driftbot",
            "email": f"{slug}.{n}@sandbox.example" if n else "bot@sandbox.example",
            "availability": ("AVAILABLE", "OFFLINE", "ON_CALL")[n % 3],
            "role": "admin" if n == 1 else ("member", "agent")[n % 2],
            "verified": n % 4 != 3,
            "bot": n == 0,
            "createdAt": USER_TIME + n * DAY,
            "updatedAt": USER_TIME + n * DAY + 5,
        }
        if n % 2:
            row |= {"alias": first, "phone": f"555-010-{n % 10_000:04d}", "locale": "de-CH"}
            row |= {"timeZone": "Europe/Zurich", "avatarUrl": f"https://img.example/{n}.png"}
        return row

    def team(self, n: int) -> Json:
        """Return team `n` of three: everybody, the even users, an archived one without owner."""
        everybody = range(USER_ID, USER_ID + self.users)
        row: Json = {
            "id": 500 + n,
            "orgId": self.org_id,
            "workspaceId": _uuid(f"workspace-{n}"),
            "name": ("Everybody", "Überstunden", "Alumni")[n],
            "updatedAt": USER_TIME + n,
            "members": (list(everybody), list(everybody[1::2]), [])[n],
            "status": "ARCHIVED" if n == 2 else "ENABLED",
            "main": n == 0,
            "autoOffline": n == 1,
            "teamAvailabilityMode": ("ALWAYS_ONLINE", "CUSTOM_HOURS", "ALWAYS_OFFLINE")[n],
            "responseTimerEnabled": n == 1,
            "teamCsatEnabled": False,
        }
        if n < 2:
            row["owner"] = self._agent(0)
        return row

    def playbook(self, n: int) -> Json:
        """Return playbook number `n`."""
        return {
            "goals": [{"id": _uuid(f"goal-{n}"), "message": "Merci, à bientôt!"}],
            "id": PLAYBOOK_ID + n,
            "name": f"Begrüßung {n}",
            "orgId": self.org_id,
            "meta": {},
            "createdAt": USER_TIME + n,
            "updatedAt": USER_TIME + DAY + n,
            "createdAuthorId": self._agent(0),
            "updatedAuthorId": self._agent(1),
            "interactionId": 305_989 + n,
            "reportType": ("BOOK_MORE_MEETINGS", "GET_MORE_LEADS")[n % 2],
        }

    def meeting(self, n: int, today: int) -> Json:
        """Return meeting number `n`; all spread evenly from 35 days before `today` to 35 after."""
        start = today - 35 * DAY + n * 70 * DAY // max(self.meetings, 1)
        row: Json = {
            "agentId": self._agent(n),
            "orgId": self.org_id,
            "status": "CANCELED" if n % 7 == 6 else "ACTIVE",
            "meetingSource": ("EMAIL_DROP", "WIDGET")[n % 2],
            "schedulerId": CONTACT_ID + n % max(self.contacts, 1),
            "eventId": f"event-{n}",
            "slug": f"slug-{n}",
            "slotStart": start,
            "slotEnd": start + 1_800_000,
            "updatedAt": start - DAY,
            "scheduledAt": start - 2 * DAY,
            "meetingType": ("New Meeting", "Follow Up")[n % 2],
        }
        if n % 2:
            row |= {"conversationId": CONVERSATION_ID + n % max(self.conversations, 1)}
            row |= {"endUserTimeZone": "Europe/Zurich", "meetingNotes": "Anruf später"}
            row |= {"bookedBy": self._agent(n), "isRecurring": False, "isPrivate": n % 3 == 0}
            row |= {"conferenceType": "ZOOM"}
            row |= {"conferenceDetails": {"join_url": f"https://meet.example/{n}"}}
        return row


def _origin() -> Json:
    location: Json = {
        "city": "Zürich",
        "region": "ZH",
        "country": "CH",
        "countryName": "Switzerland",
    }
    location |= {"postalCode": "8001", "latitude": 47.37, "longitude": 8.54}
    out: Json = {
        "tags": [],
        "_classification": "Engaged",
        "employment_name": "Müller & Söhne",
        "last_context_location": json.dumps(location, ensure_ascii=False),
        "recent_medium": "cpc",
        "recent_source": "newsletter",
        "recent_referer_url": "https://search.example/?q=größe",
        "original_referer_url": "https://search.example/",
    }
    for when in ("original", "recent"):
        for what in ("entrance", "conversation_started"):
            out[f"{when}_{what}_page_url"] = "https://www.example.com/preise"
            out[f"{when}_{what}_page_title"] = "Preise – Übersicht"
    return out


def _profiles(n: int, first: str, last: str) -> dict[str, Any]:
    return {
        "indexedAt": CONTACT_TIME,
        "id": _uuid(f"profile-{n}"),
        "fuzzy": False,
        "emailProvider": False,
        "name": {"fullName": f"{first} {last}", "givenName": first, "familyName": last},
        "employment": {"domain": "company.example", "title": "Geschäftsführerin"},
        "geo": {"city": "Zürich", "countryCode": "CH", "lat": 47.37, "lng": 8.54},
        "twitter": {"handle": f"user{n}", "followers": n},
        "linkedin": {"handle": f"in/user{n}"},
    }
