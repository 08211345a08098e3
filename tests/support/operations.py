"""Every operation of the API, written down by hand, and the rows of the package."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from drift_async import auth, resources
from drift_async.core.endpoint import Endpoint

# Name, method, path, effect, budget, scope, envelope, paging; a dash for none.
TABLE = """
contacts.create POST /contacts once default contact_write data -
contacts.get GET /contacts/{} safe default contact_read data -
contacts.find_by_email GET /contacts safe default contact_read data link_header
contacts.find_by_external_id GET /contacts safe default contact_read data -
contacts.update PATCH /contacts/{} idempotent default contact_write data -
contacts.update_by_external_id PATCH /contacts/normalize idempotent default contact_write data -
contacts.delete DELETE /contacts/{} idempotent default contact_write ok -
contacts.add_timeline_event POST /contacts/timeline once default contact_write data -
contacts.attributes GET /contacts/attributes safe default all_contact_read data -
contacts.unsubscribe POST /emails/unsubscribe idempotent default contact_write ok -
users.get GET /users/{} safe default user_read data -
users.get_many GET /users safe default user_read data -
users.all GET /users/list safe default user_read data -
users.update PATCH /users/update idempotent default user_write data -
users.meetings GET /users/meetings/org safe default user_read data -
conversations.get GET /conversations/{} safe default conversation_read data -
conversations.all GET /conversations/list safe default conversation_read data links
conversations.create POST /conversations/new once default conversation_write bare -
conversations.stats GET /conversations/stats safe default conversation_read bare -
conversations.transcript GET /conversations/{}/transcript safe default conversation_read text -
conversations.json_transcript GET /conversations/{}/json_transcript \
 safe default conversation_read data -
conversations.create_message POST /conversations/{}/messages \
 once default conversation_write data -
conversations.messages GET /conversations/{}/messages \
 safe default conversation_read data pagination
conversations.attachment GET /attachments/{}/data safe default conversation_read bytes -
reports.conversations POST /reports/conversations safe reports conversation_read bare -
accounts.create POST /accounts/create once default account_write data -
accounts.get GET /accounts/{} safe default account_read data -
accounts.all GET /accounts safe default account_read data next_url
accounts.update PATCH /accounts/update idempotent default account_write data -
accounts.delete DELETE /accounts/{} idempotent default account_write ok -
playbooks.all GET /playbooks/list safe default playbook_read bare -
playbooks.landing_pages GET /playbooks/clp safe default playbook_read bare -
teams.all GET /teams/org safe default user_read data -
teams.of_user GET /teams/users/{} safe default user_read data -
app.token_info POST /app/token_info safe default - bare -
app.uninstall POST /app/uninstall idempotent default - ok -
gdpr.retrieve POST /gdpr/retrieve once default gdpr_read data -
gdpr.delete POST /gdpr/delete idempotent default gdpr_write data -
scim.all GET /scim/Users safe default - bare scim
scim.get GET /scim/Users/{} safe default - bare -
scim.create POST /scim/Users once default - bare -
scim.replace PUT /scim/Users/{} idempotent default - bare -
scim.update PATCH /scim/Users/{} idempotent default - bare -
scim.delete DELETE /scim/Users/{} idempotent default - none -
oauth.authorize_url GET /authorize safe default - none -
oauth.exchange POST /oauth2/token once default - bare -
oauth.refresh POST /oauth2/token once default - bare -
"""

EXPECTED = {name: rest for name, *rest in map(str.split, TABLE.strip().splitlines())}


def endpoints() -> dict[str, Endpoint[Any]]:
    """Return all rows, as module and constant: contacts.find_by_email."""
    found = {}
    modules = {
        one.name: import_module(f"drift_async.resources.{one.name}")
        for one in pkgutil.iter_modules(resources.__path__)
    }
    for group, module in {**modules, "oauth": auth}.items():
        for name, value in vars(module).items():
            if isinstance(value, Endpoint):
                found[f"{group}.{name.lower()}"] = value
    return found


ENDPOINTS = endpoints()
