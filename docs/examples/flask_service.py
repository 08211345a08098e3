"""A Flask service that answers the messages of contacts, on the blocking face.

    .venv/bin/pip install . flask
    .venv/bin/flask --app docs/examples/flask_service.py run --port 8000

It reads DRIFT_TOKEN and DRIFT_VERIFICATION_TOKEN from the environment, and receives webhooks at
port 8000, path /drift.
"""

import os

from flask import Flask, request

from drift_async.sync import AuthorType, Drift, NewMessageEvent, VerificationError, Webhooks

drift = Drift.from_env()
webhooks = Webhooks(os.environ["DRIFT_VERIFICATION_TOKEN"])
app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024


@webhooks.on(NewMessageEvent)
def answer(event: NewMessageEvent) -> None:
    author, conversation_id = event.data.author, event.data.conversation_id
    if author and author.type == AuthorType.CONTACT and conversation_id:
        drift.conversations.create_message(conversation_id, "We will be with you shortly.")


@app.post("/drift")
def receive() -> tuple[str, int]:
    try:
        event = webhooks.parse(request.get_data(), request.headers)
    except VerificationError:
        return "", 401
    return "", 200 if webhooks.dispatch(event) else 500
