"""Runners that wait at the ledger: who is woken, and that nobody sleeps through what is for him."""

import asyncio

from daskdml.server import Ledger
from daskdml.server._ledger import Stop
from daskdml.server._ledger_host import LedgerHost

RUNNERS = 20


class Counted(Ledger):
    claims = 0

    def claim(self, *args):
        self.claims += 1
        return super().claim(*args)


async def opened(clocks, staleness=0, **options):
    host, ledger = LedgerHost(), Counted(RUNNERS, 1, staleness, **options)
    await host.start(ledger, [(0, 0, clocks)], {})
    return host, ledger


def test_a_report_that_frees_nobody_does_not_wake_everybody():
    async def scenario():
        host, ledger = await opened(clocks=3, speculate=None)
        for clock in range(2):
            tickets = [(await host.claim(r, r, [], 0.0)).ticket for r in range(RUNNERS)]
            assert [t.clock for t in tickets] == [clock] * RUNNERS
            waiting = []
            before = ledger.claims
            for runner, ticket in enumerate(tickets):
                await host.done(runner, ticket, None)
                if runner < RUNNERS - 1:
                    waiting.append(asyncio.ensure_future(host.claim(runner, runner, [], 30.0)))
                    await asyncio.sleep(0)
            # The slowest lane is through: all go on at once.
            answers = await asyncio.wait_for(asyncio.gather(*waiting), 5.0)
            assert [a.ticket.clock for a in answers] == [clock + 1] * (RUNNERS - 1)
            assert ledger.claims - before < 6 * RUNNERS
            for runner, answer in enumerate(answers):
                ledger._drop(answer.ticket.id, runner)

    asyncio.run(scenario())


def test_all_hear_of_the_end():
    async def scenario():
        host, _ = await opened(clocks=1, speculate=None)
        tickets = [(await host.claim(r, r, [], 0.0)).ticket for r in range(RUNNERS)]
        await host.close(0)
        waiting = []
        for runner, ticket in enumerate(tickets):
            await host.done(runner, ticket, None)
            waiting.append(asyncio.ensure_future(host.claim(runner, runner, [], 30.0)))
            await asyncio.sleep(0)
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 5.0)
        assert all(isinstance(answer.ticket, Stop) for answer in answers)

    asyncio.run(scenario())
