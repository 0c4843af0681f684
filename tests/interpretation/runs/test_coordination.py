"""Ranks over a store of this process; as processes of their own they are in scripts/test_many_processes.py."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from transformers.interpretation.runs import coordination as module
from transformers.interpretation.runs.coordination import RankError, Ranks, is_launched, joined


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.3)


def ranks_of(size):
    store = torch.distributed.HashStore()
    return [Ranks(rank, size, "cpu", store) for rank in range(size)]


def test_every_chunk_is_claimed_once_and_in_order():
    ranks, chunks = ranks_of(3), list(range(10, 400, 3))
    claimed: list[list[int]] = [[], [], []]

    def work(rank):
        for chunk in ranks[rank].claims(chunks):
            claimed[rank].append(chunk)
            ranks[rank].add(cells=chunk, chunks=1)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chunk for own in claimed for chunk in own) == chunks
    assert all(own == sorted(own) for own in claimed)
    assert (ranks[0].total("cells"), ranks[0].total("chunks"), ranks[0].total("rows")) == (sum(chunks), len(chunks), 0)


def test_what_rank_0_publishes_reaches_the_others():
    lead, other = ranks_of(2)
    threading.Timer(0.05, lead.publish, ("work", {"missing": [[0, 3]]})).start()
    assert other.await_published("work") == {"missing": [[0, 3]]}
    lead.leave()
    assert other.await_published("more") is None
    other.leave()
    assert list(other.claims([1, 2])) == []


def test_a_rank_stays_until_rank_0_lets_it_go():
    lead, other = ranks_of(2)
    leaving = threading.Thread(target=other.leave)
    leaving.start()
    leaving.join(0.1)
    assert leaving.is_alive()
    lead.leave()
    leaving.join(5)
    assert not leaving.is_alive()


def test_after_a_failure_nothing_more_is_claimed_and_rank_0_says_why():
    lead, other, third = ranks_of(3)
    claims, others = lead.claims(range(100)), third.claims(range(100))
    assert (next(claims), next(others)) == (0, 1)
    other.fail("ValueError: boom")
    third.fail("a consequence")
    assert list(others) == []
    time.sleep(0.02)
    with pytest.raises(RankError, match=r"^rank 1 on .*: ValueError: boom$"):
        next(claims)


def test_a_rank_that_falls_silent_is_noticed():
    lead, other = ranks_of(2)
    for _ in range(20):  # longer than the silence that is allowed
        time.sleep(0.03)
        lead.check()
    other._left.set()  # as if killed
    with pytest.raises(RankError, match=r"^no heartbeat from rank 1 for "):
        for _ in range(200):
            time.sleep(0.03)
            lead.check()


def test_a_process_alone_joins_nothing(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    for size in (None, "1"):
        if size:
            monkeypatch.setenv("RANK", "0")
            monkeypatch.setenv("WORLD_SIZE", size)
        assert not is_launched()
        with joined("auto") as ranks:
            assert ranks is None
        assert not torch.distributed.is_initialized()
