"""The books that clients keep: one sample for each request."""

import collections
import threading
import time

from checks import expect, say, until

Sample = collections.namedtuple("Sample", "sent done method backend failure identity")


class Ledger:
    """What several clients write down."""

    def __init__(self):
        self.lock = threading.Lock()
        self.samples = []

    def enter(self, sample):
        with self.lock:
            self.samples.append(sample)

    def since(self, begun, until=float("inf")):
        with self.lock:
            return [sample for sample in self.samples if begun <= sample.sent and sample.done <= until]

    def first(self, backend, after):
        """When the first answer from it came; None if none has yet."""
        times = [s.done for s in self.since(after) if s.backend == backend]
        return min(times, default=None)

    def last(self, backend, after=0.0):
        """When the last request that it answered was sent."""
        return max((s.sent for s in self.since(after) if s.backend == backend), default=None)

    def shares(self, count=400):
        """Requests by backend among the next so many."""
        begun = time.time()
        samples = until(f"{count} requests", lambda: s if len(s := self.since(begun)) >= count else None)
        return collections.Counter(s.backend for s in samples if not s.failure)

    def failures(self):
        return [s for s in self.since(0.0) if s.failure]


def equal_shares(ledger, backends):
    """Everybody in `backends` and nobody else, and nobody much more than another."""
    shares = ledger.shares()
    expect(set(shares) == set(backends), f"served by {dict(shares)}, not by {sorted(backends)}")
    expect(min(shares.values()) > 0.8 * max(shares.values()), f"unequal shares: {dict(shares)}")
    total = sum(shares.values())
    say(f"  shares of {total} requests: " + ", ".join(f"{n / total:.1%}" for n in sorted(shares.values())))
