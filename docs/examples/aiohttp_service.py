"""An aiohttp.web service that answers the messages of contacts.

    .venv/bin/pip install .
    .venv/bin/python docs/examples/aiohttp_service.py

It reads DRIFT_TOKEN and DRIFT_VERIFICATION_TOKEN from the environment, and receives webhooks at
port 8000, path /drift.
"""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from drift_async import AuthorType, Drift, NewMessageEvent, Webhooks

drift = Drift.from_env()
webhooks = Webhooks(os.environ["DRIFT_VERIFICATION_TOKEN"])


@webhooks.on(NewMessageEvent)
async def answer(event: NewMessageEvent) -> None:
    author, conversation_id = event.data.author, event.data.conversation_id
    if author and author.type == AuthorType.CONTACT and conversation_id:
        await drift.conversations.create_message(conversation_id, "We will be with you shortly.")


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    async with drift:
        yield
        await webhooks.drain(timeout=10)


app = web.Application()
app.cleanup_ctx.append(lifespan)
app.router.add_post("/drift", webhooks.aiohttp_handler())

if __name__ == "__main__":
    web.run_app(app, port=8000)
