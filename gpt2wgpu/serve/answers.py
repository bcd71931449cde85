"""Vectors as bytes of JSON: floats as short as float32 allows, or base64 of little-endian float32."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response, StreamingResponse

from ..graph.tensor import Array

ROWS_IN_A_SLICE = 64  # encoded in one go, during which nothing else runs on the event loop
Item = Callable[[int, bytes], bytes]  # the number of a row and the row in JSON -> its item in the answer


def json_bytes(value: Any) -> bytes:
    """JSON of plain values and of float32 arrays."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes(value), status, headers, "application/json")


def encode_row(row: Array, as_base64: bool) -> bytes:
    """One vector, or the states of one text's tokens, in JSON."""
    row = np.ascontiguousarray(row, "<f4")
    return b'"' + base64.b64encode(row.data) + b'"' if as_base64 else json_bytes(row)


async def stream_rows(
    rows: Any, before: bytes, after: bytes, item: Item = lambda i, row: row, *, as_base64: bool = False
) -> AsyncIterator[bytes]:
    """before, the items with commas between, after; in slices between which the event loop has its turn."""
    yield before
    for first in range(0, len(rows), ROWS_IN_A_SLICE):
        part = range(first, min(first + ROWS_IN_A_SLICE, len(rows)))
        yield (b"," if first else b"") + b",".join(item(i, encode_row(rows[i], as_base64)) for i in part)
        await asyncio.sleep(0)
    yield after


async def rows_response(
    rows: Any, before: bytes, after: bytes, item: Item = lambda i, row: row, *, as_base64: bool = False, headers: dict[str, str]
) -> Response:
    """Few rows in one piece with its length; many as they are encoded."""
    stream = stream_rows(rows, before, after, item, as_base64=as_base64)
    if len(rows) > ROWS_IN_A_SLICE:
        return StreamingResponse(stream, 200, headers, "application/json")
    return Response(b"".join([part async for part in stream]), 200, headers, "application/json")
