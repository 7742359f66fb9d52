"""What the driver hears from the ledger: of all lanes together, where they are quick."""

import asyncio
import time

from daskdml.server._ledger import Ledger
from daskdml.server._ledger_host import LedgerHost


async def claimed(host, runner):
    return (await host.claim(runner, runner, [], 1.0)).ticket


async def heard(gather, both):
    """What is heard, and after how long, if lane 0 reports at once and lane 1, if ``both``, a little later."""
    host = LedgerHost()
    await host.start(Ledger(2, 1, 1), [(1, 0, 3)], {})
    tickets = [await claimed(host, runner) for runner in range(2)]
    await host.done(0, tickets[0], "first")
    begun = time.monotonic()
    hearing = asyncio.ensure_future(host.news(0, 30.0, gather))
    await asyncio.sleep(0.1)
    if both:
        await host.done(1, tickets[1], "second")
    news = await hearing
    return [report for _, report in news.done], news.minimum, time.monotonic() - begun


def test_reports_are_gathered_until_the_slowest_lane_is_further():
    told, minimum, seconds = asyncio.run(heard(30.0, both=True))
    assert told == ["first", "second"] and minimum == 1 and seconds < 10


def test_but_only_so_long():
    told, minimum, seconds = asyncio.run(heard(0.3, both=False))
    assert told == ["first"] and minimum == 0 and seconds >= 0.25


def test_and_not_at_all_where_nobody_asks_for_it():
    told, _, _ = asyncio.run(heard(0.0, both=True))
    assert told == ["first"]
