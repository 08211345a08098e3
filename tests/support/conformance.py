"""What every failure makes of every operation, written down by hand.

The effect of each operation, and for each failure what a call becomes: the error and its
``applied``, the attempts made, and the requests that reached the server. Nothing here is read from
the package.
"""

from __future__ import annotations

from collections.abc import Mapping

SAFE = """
contacts.get contacts.find_by_email contacts.find_by_external_id contacts.attributes
users.get users.get_many users.all users.meetings
conversations.get conversations.all conversations.stats conversations.messages
conversations.transcript conversations.json_transcript conversations.attachment
accounts.get accounts.all playbooks.all playbooks.landing_pages teams.all teams.of_user
app.token_info scim.all scim.get reports.conversations
"""
IDEMPOTENT = """
contacts.update contacts.update_by_external_id contacts.delete contacts.unsubscribe
users.update accounts.update accounts.delete app.uninstall gdpr.delete
scim.replace scim.update scim.delete
"""
ONCE = """
contacts.create contacts.add_timeline_event conversations.create conversations.create_message
accounts.create gdpr.retrieve scim.create
"""
EFFECTS: Mapping[str, str] = {
    **dict.fromkeys(SAFE.split(), "safe"),
    **dict.fromkeys(IDEMPOTENT.split(), "idempotent"),
    **dict.fromkeys(ONCE.split(), "once"),
}

# Error, applied, attempts, requests at the server: of safe and idempotent | of once operations.
TABLE = """
refused            ConnectError False 3 0         | ConnectError False 3 0
dns                ConnectError False 3 0         | ConnectError False 3 0
tls                ConnectError False 3 0         | ConnectError False 3 0
certificate        ConnectError False 1 0         | ConnectError False 1 0
reset-before-send  ConnectError False 3 0         | ConnectError False 3 0
reset-after-send   ConnectionLostError None 3 3   | OutcomeUnknownError None 1 1
stalled-head       ConnectionLostError None 3 3   | OutcomeUnknownError None 1 1
stalled-body       ConnectionLostError True 3 3   | ConnectionLostError True 1 1
short-body         ConnectionLostError True 3 3   | ConnectionLostError True 1 1
429                RateLimitError False 3 3       | RateLimitError False 3 3
500                ServerError None 3 3           | ServerError None 1 1
503                ServerError False 3 3          | ServerError False 3 3
504                ServerError None 3 3           | ServerError None 1 1
"""
FAILURES = [line.split()[0] for line in TABLE.strip().splitlines()]
# Where the first attempt was applied, and the second is told so by another reply.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    (name, failure): cell
    for failure in ("stalled-body", "short-body")
    for name, cell in {
        "contacts.delete": "fine 2",  # not found: deleted by the call itself
        "scim.delete": "fine 1",  # a reply without a body, so nothing of it is missing
        "scim.update": "NotFoundError True 2 2",  # deactivated users are not found
        "app.uninstall": "AuthenticationError True 2 2",  # the token went with the app
    }.items()
}


def expected(failure: str) -> dict[str, str]:
    """Return the cells of one failure by operation."""
    [row] = [line for line in TABLE.strip().splitlines() if line.split()[0] == failure]
    again, once = row.removeprefix(failure).split("|")
    return {
        name: EXCEPTIONS.get((name, failure)) or (once if effect == "once" else again).strip()
        for name, effect in EFFECTS.items()
    }
