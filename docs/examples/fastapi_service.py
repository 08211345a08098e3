"""A FastAPI service that answers the messages of contacts.

    .venv/bin/pip install . fastapi uvicorn
    .venv/bin/uvicorn --app-dir docs/examples fastapi_service:app --port 8000

It reads DRIFT_TOKEN and DRIFT_VERIFICATION_TOKEN from the environment, and receives webhooks at
port 8000, path /drift.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Route

from drift_async import AuthorType, Drift, NewMessageEvent, Webhooks

drift = Drift.from_env()
webhooks = Webhooks(os.environ["DRIFT_VERIFICATION_TOKEN"])


@webhooks.on(NewMessageEvent)
async def answer(event: NewMessageEvent) -> None:
    author, conversation_id = event.data.author, event.data.conversation_id
    if author and author.type == AuthorType.CONTACT and conversation_id:
        await drift.conversations.create_message(conversation_id, "We will be with you shortly.")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with drift:
        yield
        await webhooks.drain(timeout=10)


app = FastAPI(lifespan=lifespan)
app.router.routes.append(Route("/drift", webhooks.asgi()))
