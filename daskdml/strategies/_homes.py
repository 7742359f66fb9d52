"""On which worker each replica is at home: its blocks are cached there."""

from __future__ import annotations


def settled(homes: dict[int, str], n_replicas: int, threads: dict[str, int]) -> dict[int, str]:
    """Every replica's worker: the one it had if that still runs, else the one with the fewest replicas a thread.

    Examples
    --------
    >>> settled({0: "a", 1: "gone"}, 3, {"a": 1, "b": 2})
    {0: 'a', 1: 'b', 2: 'b'}
    """
    if not threads:
        return homes
    load = dict.fromkeys(threads, 0)
    kept = {replica: address for replica, address in homes.items() if address in threads}
    for address in kept.values():
        load[address] += 1
    for replica in range(n_replicas):
        if replica not in kept:
            address = min(threads, key=lambda a: (load[a] / threads[a], a))
            kept[replica] = address
            load[address] += 1
    return kept
