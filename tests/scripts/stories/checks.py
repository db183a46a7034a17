"""What the story is told with: times, and what has to hold."""

import time

BEGUN = time.time()
# For anything that takes a few seconds when all is well.
PATIENCE = 60.0


class Broken(Exception):
    """Something does not hold."""


def expect(holds, what):
    if not holds:
        raise Broken(what)


def until(what, condition, patience=PATIENCE, pause=0.05):
    """Looks again and again; returns what the condition gave."""
    begun = time.time()
    while True:
        found = condition()
        if found:
            return found
        expect(time.time() - begun < patience, f"waited {patience:.0f} s in vain: {what}")
        time.sleep(pause)


def say(text):
    print(f"{time.time() - BEGUN:6.1f} s  {text}", flush=True)


def seconds(times):
    return ", ".join(f"{t:.2f}" for t in sorted(times)) + " s"
