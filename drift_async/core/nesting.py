"""How deep JSON nests, told without parsing it: in linear time, and never long in one step.

A hostile body must not hold the interpreter, and with it the event loop, so nothing here works
through a large body in a single step that is slower than a search.
"""

from __future__ import annotations

import re
from itertools import accumulate

_AS_ARRAYS = bytes.maketrans(b"{}", b"[]")
_NOT_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
_QUOTED = re.compile(rb'"[^"]*+"?')
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")  # as signed numbers: one up, one down
_FEW = 65_536
_CHUNK = 65_536


def nests_over(body: bytes, levels: int) -> bool:
    """Tell whether brackets nest over so many *levels*; of what is no JSON it may tell either."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Every other quote ends a text now, so that two without a bracket between can go: an even
    # number takes no bracket into a text or out of it.
    brackets = body.translate(_AS_ARRAYS, _NOT_MARKS)
    if _has_few_besides_rows(brackets, levels):
        return False
    for even in (b'"' * 32, b'"' * 8, b'""'):
        brackets = brackets.replace(even, b"")
    if b'"' in brackets:
        brackets = _QUOTED.sub(b"", brackets)
    while b"[]" in brackets and len(brackets) < _FEW:
        if levels == 0:
            return True
        brackets, levels = brackets.replace(b"[]", b""), levels - 1
    return _rises_over(brackets, levels)


def _has_few_besides_rows(brackets: bytes, levels: int) -> bool:
    """Tell whether there are too few brackets for that, rows that nest alike counted as one.

    Such a row, with the two brackets between it and the one before, ends as high as it began, be
    it in a text or not.
    """
    row = b"".join(brackets.split(b"][", 2)[1:2])
    if len(row) > _FEW:
        return False
    rest, height = row.replace(b'""', b""), 0
    while b"[]" in rest and height < levels:
        rest, height = rest.replace(b"[]", b""), height + 1
    if rest:
        return False  # it does not end as it began
    row = b"][" + row
    return brackets.count(b"[") - brackets.count(row) * row.count(b"[") + height <= levels


def _rises_over(brackets: bytes, levels: int) -> bool:
    steps, level = memoryview(brackets.translate(_STEPS)).cast("b"), 0
    for start in range(0, len(steps), _CHUNK):
        path = list(accumulate(steps[start : start + _CHUNK], initial=level))
        if path[-1] < 0:
            return False  # more ends than beginnings: no JSON
        if max(path) > levels:
            return True
        level = path[-1]
    return False
