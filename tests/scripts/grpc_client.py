"""Calls every kind of method through Evenkeel: `grpc_client.py ADDRESS CA SILENT`.

Prints what it found, a line for each check; the last one is `fine`.
"""

import hashlib
import sys
import threading
import time
from collections import Counter

import grpc

ADDRESS, CA, SILENT = sys.argv[1], sys.argv[2], float(sys.argv[3])
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.ssl_target_name_override", "localhost"),
    ("grpc.enable_retries", 0),
]
with open(CA, "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
channel = grpc.secure_channel(ADDRESS, credentials, options=UNLIMITED)
unary = channel.unary_unary("/t.S/Unary")
server_stream = channel.unary_stream("/t.S/ServerStream")
client_stream = channel.stream_unary("/t.S/ClientStream")
both = channel.stream_stream("/t.S/Both")


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")


for size in (0, 1024, 10 * 1024 * 1024):
    message = bytes(range(256)) * (size // 256)
    response, call = unary.with_call(message, timeout=60)
    assert response == message, size
    trailers = dict(call.trailing_metadata())
    assert trailers["x-trailer"] == dict(call.initial_metadata())["x-backend"]
    assert trailers["x-data-bin"] == b"\x00\xff\x01"
    received = list(server_stream(b"", timeout=60, metadata=(("count", "3"), ("size", str(size)))))
    assert received == [bytes([n]) * size for n in range(3)], size
    sent = [message] * 3
    expected = f"{3 * size} {hashlib.sha256(b''.join(sent)).hexdigest()}"
    assert client_stream(iter(sent), timeout=60) == expected.encode(), size
    assert list(both(iter(sent), timeout=60)) == sent, size
    print(f"all four kinds, messages of {size} bytes")

turns = []
hand_over = threading.Event()


def spoken():
    for n in range(20):
        yield f"{n}".encode()
        hand_over.wait(10)
        hand_over.clear()


for response in both(spoken(), timeout=60):
    turns.append(response)
    hand_over.set()
assert turns == [f"{n}".encode() for n in range(20)], turns
print("a conversation in turns")

for name in ("NOT_FOUND", "UNAVAILABLE", "INTERNAL"):
    error = error_of(lambda: unary(b"", timeout=20, metadata=(("fail", name),)))
    assert error.code() == grpc.StatusCode[name], error
    assert error.details() == "as you \u00fcwish, 100 %", error.details()
wanted = (("count", "5"), ("size", "10"), ("fail", "DATA_LOSS"))
stream = server_stream(b"", timeout=20, metadata=wanted)
received = []
error = error_of(lambda: received.extend(stream))
assert error.code() == grpc.StatusCode.DATA_LOSS
assert dict(stream.trailing_metadata())["x-trailer"]
print("errors in trailers, and in trailers alone")

begun = time.monotonic()
error = error_of(lambda: unary(b"", timeout=0.5, metadata=(("hang", "1"),)))
assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
assert time.monotonic() - begun < 10
print("a deadline")

hanging = server_stream(b"", metadata=(("hang", "1"),))
# Its server has the call when it has said who it is.
hanging.initial_metadata()
hanging.cancel()
print("a cancellation")

begun = time.monotonic()
wanted = (("count", "2"), ("size", "5"), ("silent", str(SILENT)))
assert len(list(server_stream(b"", metadata=wanted))) == 2
assert time.monotonic() - begun >= SILENT
pause = threading.Event()


def halting():
    yield b"a"
    pause.wait(SILENT)
    yield b"b"


assert list(both(halting())) == [b"a", b"b"]
print(f"streams that are silent for {SILENT:g} s")

calls = [unary.with_call(b"x", timeout=20) for _ in range(100)]
seen = Counter(dict(call.initial_metadata())["x-backend"] for _, call in calls)
print("shares", sorted(seen.items()))

missing = channel.unary_unary("/t.S/Missing")
assert error_of(lambda: missing(b"", timeout=20)).code() == grpc.StatusCode.UNIMPLEMENTED
nobody = channel.unary_unary("/nobody/Here")
error = error_of(lambda: nobody(b"", timeout=20))
assert error.code() == grpc.StatusCode.UNAVAILABLE, error
assert "no backend" in error.details(), error
print("errors of Evenkeel's own")
print("fine")
