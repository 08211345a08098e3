"""All that can be read off an error."""

from __future__ import annotations

import traceback


def told(error: BaseException, *, with_locals: bool) -> str:
    """Return all that can be read off an error, its chain and the library's frames."""
    texts = [repr(error), str(error), repr(error.args), repr(vars(error))]
    texts += getattr(error, "__notes__", [])
    trace = traceback.TracebackException.from_exception(error, capture_locals=with_locals)
    for frame in trace.stack:
        if "/drift_async/" in frame.filename:
            texts += [str(frame.line), repr(frame.locals)]
    for linked in (error.__cause__, error.__context__):
        if linked is not None:
            texts.append(told(linked, with_locals=with_locals))
    return "\n".join(texts)
