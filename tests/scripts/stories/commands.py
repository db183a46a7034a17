"""Programs that are run, and what Docker says of time."""

import datetime
import shlex
import subprocess

from checks import Broken


def run(*command, check=True, patience=120, stdin=""):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=patience, check=False)
    if check and done.returncode != 0:
        raise Broken(f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def stamp(text):
    """Docker's RFC 3339 with nanoseconds, as seconds since 1970."""
    return datetime.datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()
