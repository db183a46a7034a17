"""A WebSocket client for tests/backend.rs, after RFC 6455 and on bare sockets: what a library would
never send is sent here too.

Opens a WebSocket at PORT for each case, checks what comes back, prints the name of each case that
held, and ends with 1 at the first that did not.

usage: websocket.py PORT [CASE…]
"""

import base64
import hashlib
import os
import socket
import struct
import sys

PORT = int(sys.argv[1])
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LIMIT = 1 << 20


class Client:
    def __init__(self, first=b""):
        """`first` goes out together with the handshake, before its answer is there."""
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            b"GET /any/path?x HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: chat, other\r\n"
            b"Sec-WebSocket-Key: " + key + b"\r\n\r\n" + first
        )
        while b"\r\n\r\n" not in self.held:
            self.more()
        head, self.held = self.held.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 101 Switching Protocols", lines
        self.fields = {}
        for line in lines[1:]:
            name, value = line.split(b":", 1)
            self.fields[name.strip().lower()] = value.strip()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        assert self.fields[b"sec-websocket-accept"] == accept, self.fields
        assert self.fields[b"sec-websocket-protocol"] == b"chat", self.fields
        assert self.fields[b"x-backend"] == b"w1", self.fields

    def more(self):
        piece = self.socket.recv(65536)
        assert piece, f"closed after {self.held!r}"
        self.held += piece

    def take(self, count):
        while len(self.held) < count:
            self.more()
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def send(self, *arguments, **options):
        self.socket.sendall(frame(*arguments, **options))

    def receive(self):
        """Opcode and payload; a server's frames are whole here and never masked."""
        first, second = self.take(2)
        assert first & 0xF0 == 0x80, f"FIN and no reserved bits: {first:x}"
        assert second & 0x80 == 0, "masked"
        length = second
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return first & 0x0F, self.take(length)

    def expect(self, opcode, payload):
        got = self.receive()
        assert got == (opcode, payload), f"{got[0]} {got[1][:100]!r} ({len(got[1])} bytes)"

    def expect_close(self, code):
        opcode, payload = self.receive()
        assert opcode == CLOSE and struct.unpack("!H", payload[:2])[0] == code, (opcode, payload)

    def expect_end(self):
        assert self.held == b"" and self.socket.recv(1) == b""


def frame(opcode, payload=b"", fin=True, mask=True):
    out = bytes([opcode | (0x80 if fin else 0)])
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        out += bytes([masked | len(payload)])
    elif len(payload) < 1 << 16:
        out += bytes([masked | 126]) + struct.pack("!H", len(payload))
    else:
        out += bytes([masked | 127]) + struct.pack("!Q", len(payload))
    if not mask:
        return out + payload
    key = os.urandom(4)
    pad = key * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(pad[: len(payload)], "big")
    return out + key + number.to_bytes(len(payload), "big")


def everything_said_is_said_back():
    client = Client()
    sizes = [0, 1, 125, 126, 65535, 65536, LIMIT]
    for size in sizes:
        client.send(TEXT, b"x" * size)
        client.expect(TEXT, b"x" * size)
        data = os.urandom(size)
        client.send(BINARY, data)
        client.expect(BINARY, data)
    client.send(TEXT, "naïve ☃".encode())
    client.expect(TEXT, "naïve ☃".encode())


def pieces_are_one_message_and_a_ping_may_come_between():
    client = Client()
    text = "a☃b".encode()
    client.send(TEXT, text[:2], fin=False)
    client.send(PING, b"now")
    client.expect(PONG, b"now")
    client.send(CONTINUATION, text[2:3], fin=False)
    client.send(CONTINUATION, text[3:])
    client.expect(TEXT, text)
    client.send(PONG, b"unasked")
    client.send(PING)
    client.expect(PONG, b"")


def what_comes_with_the_handshake_is_not_lost():
    client = Client(first=frame(TEXT, b"early") + frame(BINARY, b"later"))
    client.expect(TEXT, b"early")
    client.expect(BINARY, b"later")


def a_close_is_answered():
    for payload in [struct.pack("!H", 1000) + b"bye", b""]:
        client = Client()
        client.send(CLOSE, payload)
        client.expect(CLOSE, payload)
        client.expect_end()


def a_message_may_not_be_larger_than_the_limit():
    client = Client()
    client.send(BINARY, b"x" * (LIMIT + 1))
    client.expect_close(1009)
    client = Client()
    for n in range(16):
        client.send(BINARY if n == 0 else CONTINUATION, b"x" * (LIMIT // 16), fin=False)
    client.send(CONTINUATION, b"x")
    client.expect_close(1009)


def text_is_utf_8():
    client = Client()
    client.send(TEXT, b"\xff")
    client.expect_close(1007)


def a_client_masks():
    client = Client()
    client.send(TEXT, b"x", mask=False)
    client.expect_close(1002)


def stays_until_it_is_told():
    """For the end of a backend: says when it is open, and then what the close was."""
    client = Client()
    client.send(TEXT, b"x")
    client.expect(TEXT, b"x")
    print("open", flush=True)
    client.expect_close(1001)
    client.send(CLOSE, struct.pack("!H", 1001))
    client.expect_end()


CASES = [
    everything_said_is_said_back,
    pieces_are_one_message_and_a_ping_may_come_between,
    what_comes_with_the_handshake_is_not_lost,
    a_close_is_answered,
    a_message_may_not_be_larger_than_the_limit,
    text_is_utf_8,
    a_client_masks,
]

chosen = [globals()[name] for name in sys.argv[2:]]
for case in chosen or CASES:
    try:
        case()
    except Exception as error:
        print(f"{case.__name__}: {error!r}", flush=True)
        sys.exit(1)
    print(case.__name__, flush=True)
