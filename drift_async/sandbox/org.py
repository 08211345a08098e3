"""Playbooks, the app and its tokens, and data privacy."""

from __future__ import annotations

import zlib

from .call import Call, bad, data, ok, text
from .types import Refusal, Reply


def playbooks(call: Call) -> Reply:
    seed = call.store.seed
    return Reply([seed.playbook(n) for n in range(seed.playbooks)])


def landing_pages(call: Call) -> Reply:
    seed = call.store.seed
    rows = [seed.playbook(n) for n in range(0, seed.playbooks, 2)]
    return Reply(
        [
            {
                "playbookId": row["id"],
                "playbookName": row["name"],
                "landingPageUrl": f"https://sandbox.drift.click/seite-{row['id']}",
            }
            for row in rows
        ]
    )


def token_info(call: Call) -> Reply:
    given = call.object()
    key = "access_token" if given.get("access_token") is not None else "accessToken"
    if given.get(key) is None:
        raise bad("access_token", "is required")
    token = call.state.tokens.get(text(given[key], key))
    if token is None or (token.expires is not None and token.expires * 1000 <= call.now):
        raise Refusal(404, "no such token")
    lifetime = 0 if token.expires is None else int((token.expires - token.created) * 1000)
    return Reply(
        {
            "access_token": token.text,
            "authenticated_userid": f"orgId:{call.store.seed.org_id}",
            "credential_id": "",
            "token_type": "bearer",
            "expires_in": lifetime,
            "created_at": int(token.created * 1000),
            "scope": " ".join(sorted(token.scopes)),
            "id": f"{zlib.crc32(token.text.encode()):08x}",
        }
    )


def uninstall(call: Call) -> Reply:
    if not call.state.app.known(call.need("clientId"), call.need("clientSecret")):
        headers = [("WWW-Authenticate", 'Bearer error="invalid_client"')]
        raise Refusal(401, "clientId and clientSecret do not match", headers=headers)
    if call.token is not None:
        call.state.revoke(call.token.text)
        if grant := call.token.grant:
            call.state.app.drop([grant])
    call.state.webhooks.send("app_disconnected", {})
    return ok()


def retrieve(call: Call) -> Reply:
    text(call.object(["email"])["email"], "email")
    users = call.store.users.values()
    owner = next((row for row in users if row["role"] == "admin"), next(iter(users)))
    message = f"Your request is processing, the result will be sent to {owner['email']}"
    return data({"message": message, "sentToEmail": owner["email"]})


def erase(call: Call) -> Reply:
    email = text(call.object(["email"])["email"], "email")
    call.state.erasures.append((call.clock + call.state.erase_delay, email))
    call.state.erase_due(call.clock)
    call.state.webhooks.send("gdpr_delete_requested", {"email": email})
    return data({"message": "Your delete is processing"})
