"""A place in a lane for as long as a block lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aos_mcp.kernel.admission import Admission, Demand, Seat


@asynccontextmanager
async def seated(admission: Admission, model: str, demand: Demand) -> AsyncIterator[Seat]:
    seat = await admission.take(model, demand)
    try:
        yield seat
    finally:
        admission.give_back(seat)
