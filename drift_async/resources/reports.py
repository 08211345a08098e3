"""Reports: numbers about conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from ..core import validate
from ..core.models import Model, OpenEnum, body_of, model
from ..core.request import Endpoint
from ..core.resource import Resource
from ..errors import InputError


class ReportOperation(OpenEnum):
    """How a filter compares."""

    HAS_PROPERTY = "HAS_PROPERTY"
    BETWEEN = "BETWEEN"
    IN = "IN"


@model
class ReportFilter(Model):
    """Which conversations to count.

    ``BETWEEN`` takes two values, days (``YYYY-MM-DD``, both included) or moments (aware datetimes
    or epoch milliseconds); ``IN`` takes any number, ``HAS_PROPERTY`` none.
    """

    property: str
    operation: ReportOperation
    values: tuple[Any, ...] | None = None


def _check_metrics(row: object, field: attrs.Attribute[Any], metrics: Sequence[Any]) -> None:
    for n, metric in enumerate(metrics):
        if metric != "NaN" and (isinstance(metric, bool) or not isinstance(metric, int | float)):
            raise InputError(f"metrics[{n}]", "must be a number or NaN")


@model
class ReportRow(Model):
    """The metrics of one conversation, in the order asked; ``raw_metrics`` are as they came."""

    conversation_id: int
    raw_metrics: tuple[Any, ...] = attrs.field(validator=_check_metrics)

    wire: ClassVar[Mapping[str, str]] = {"raw_metrics": "metrics"}

    @property
    def metrics(self) -> tuple[float | None, ...]:
        """The metrics; None where the conversation has no such number."""
        return tuple(None if metric == "NaN" else metric for metric in self.raw_metrics)


@model
class Report(Model):
    """The number of conversations that fit, and a row for each."""

    count: int
    rows: tuple[ReportRow, ...]

    wire: ClassVar[Mapping[str, str]] = {"rows": "data"}


CONVERSATIONS = Endpoint(
    "POST",
    "/reports/conversations",
    Report,
    effect="safe",
    envelope="bare",
    budget="reports",
    scope="conversation_read",
)


class Reports(Resource):
    """Numbers about conversations: https://devdocs.drift.com/docs/conversation-reporting"""

    async def conversations(
        self, filters: Sequence[ReportFilter], metrics: Sequence[str]
    ) -> Report:
        """Return the conversations that fit all *filters*, with these *metrics* of each.

        *metrics* are numeric properties such as ``timeToCloseMillis``. The API takes 60 such calls
        a minute, and the client keeps to it.
        https://devdocs.drift.com/docs/conversation-reporting
        """
        body = {
            "filters": validate.items(
                "filters", filters, lambda field, one: body_of(field, one, ReportFilter)
            ),
            "metrics": validate.items("metrics", metrics, validate.text),
        }
        return await self._call(CONVERSATIONS, body)
