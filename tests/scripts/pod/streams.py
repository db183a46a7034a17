"""A client of HTTP/2 that keeps its connection and has several requests under way on it.

After RFC 9113, on frames: libraries give up on a connection that says GOAWAY, and requests that would
still be answered there are lost. Here they are waited for, and new ones go to a new connection. Those
that the server says it has not begun (a stream above the last one of GOAWAY, REFUSED_STREAM) are sent
again, as §6.8 and §8.7 allow for any method.
"""

import select
import socket
import time

import hpack
from hyperframe import frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REFUSED_STREAM = 7
# So much may come before it has to be acknowledged; nothing here is larger.
WINDOW = 1 << 24
# For an answer, in seconds.
PATIENCE = 20


class Connection:
    """`opened` is a socket after its handshake, with h2 agreed upon."""

    def __init__(self, opened):
        self.socket = opened
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.held = b""
        self.next = 1
        # Requests under way, by stream: what the caller gave, and what has come.
        self.streams = {}
        self.block = None
        # It takes no more requests.
        self.is_leaving = False
        self.is_over = False
        settings = frames.SettingsFrame(0, settings={frames.SettingsFrame.INITIAL_WINDOW_SIZE: WINDOW})
        self.socket.sendall(PREFACE)
        self.send(settings)
        self.send(frames.WindowUpdateFrame(0, window_increment=WINDOW))

    def send(self, frame):
        self.socket.sendall(frame.serialize())

    def request(self, what, fields, body):
        """Begins one; `what` comes back with its answer. A body has to fit the first window (64 KiB)."""
        stream, self.next = self.next, self.next + 2
        self.streams[stream] = (what, {}, [], time.time())
        head = frames.HeadersFrame(stream, data=self.encoder.encode(fields), flags=["END_HEADERS"])
        if not body:
            head.flags.add("END_STREAM")
        self.send(head)
        if body:
            self.send(frames.DataFrame(stream, data=body, flags=["END_STREAM"]))

    def receive(self):
        """Takes what is there. Returns those that have ended: (what, fields, body, failure, may be sent again)."""
        ended = []
        try:
            data = self.socket.recv(1 << 16)
        except (BlockingIOError, OSError) as error:
            return self.lose(repr(error))
        if not data:
            return self.lose("the connection was closed")
        self.held += data
        while len(self.held) >= 9:
            frame, length = frames.Frame.parse_frame_header(memoryview(self.held[:9]))
            if len(self.held) < 9 + length:
                break
            frame.parse_body(memoryview(self.held[9 : 9 + length]))
            self.held = self.held[9 + length :]
            ended += self.take(frame)
        return ended

    def take(self, frame):
        if isinstance(frame, frames.SettingsFrame) and "ACK" not in frame.flags:
            self.send(frames.SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, frames.PingFrame) and "ACK" not in frame.flags:
            self.send(frames.PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, frames.GoAwayFrame):
            self.is_leaving = True
            above = [stream for stream in self.streams if stream > frame.last_stream_id]
            return [self.end(stream, "not begun before GOAWAY", True) for stream in above]
        elif isinstance(frame, frames.RstStreamFrame) and frame.stream_id in self.streams:
            again = frame.error_code == REFUSED_STREAM
            return [self.end(frame.stream_id, f"the stream was reset with {frame.error_code}", again)]
        elif isinstance(frame, (frames.HeadersFrame, frames.ContinuationFrame)):
            self.block = (self.block or b"") + frame.data
            self.is_last = "END_STREAM" in frame.flags if isinstance(frame, frames.HeadersFrame) else self.is_last
            if "END_HEADERS" in frame.flags:
                fields, self.block = dict(self.decoder.decode(self.block)), None
                if frame.stream_id in self.streams:
                    self.streams[frame.stream_id][1].update(fields)
                return self.end_if(frame.stream_id, self.is_last)
        elif isinstance(frame, frames.DataFrame):
            if frame.flow_controlled_length:
                self.send(frames.WindowUpdateFrame(0, window_increment=frame.flow_controlled_length))
            if frame.stream_id in self.streams:
                self.streams[frame.stream_id][2].append(bytes(frame.data))
            return self.end_if(frame.stream_id, "END_STREAM" in frame.flags)
        return []

    def end_if(self, stream, is_last):
        return [self.end(stream, None, False)] if is_last and stream in self.streams else []

    def end(self, stream, failure, again):
        what, fields, body, _ = self.streams.pop(stream)
        return what, fields, b"".join(body), failure, again

    def lose(self, reason):
        self.is_leaving = self.is_over = True
        return [self.end(stream, reason, False) for stream in list(self.streams)]

    def forget(self, patience):
        """Those that have been under way for longer; ends the connection if there are any."""
        late = [stream for stream, held in self.streams.items() if time.time() - held[3] > patience]
        return self.lose(f"no answer within {patience:.0f} s") if late else []

    def close(self):
        self.is_over = True
        try:
            self.send(frames.GoAwayFrame(0, last_stream_id=0, error_code=0))
        except OSError:
            pass
        self.socket.close()


class Client:
    """Requests at a pace, on one connection as long as it takes them.

    `open_socket` opens one, `think` gives the next (what, fields, body), `tell` is called with each
    (what, fields, body, failure).
    """

    def __init__(self, open_socket, think, tell, pause):
        self.open_socket, self.think, self.tell, self.pause = open_socket, think, tell, pause
        self.connections = []
        # Requests that were sent again.
        self.again = 0

    def current(self):
        for connection in self.connections:
            if not connection.is_leaving and connection.next < 1 << 30:
                return connection
        self.connections.append(Connection(self.open_socket()))
        return self.connections[-1]

    def begin(self, thought):
        what, fields, body = thought
        try:
            self.current().request((what, thought), fields, body)
        except OSError as error:
            # Those of its requests that are on a connection are told by receive().
            if not any(what == held[0][0] for c in self.connections for held in c.streams.values()):
                self.tell(what, {}, b"", repr(error))

    def run(self, stopping):
        due = time.time()
        while not stopping.is_set() or any(c.streams for c in self.connections):
            if time.time() >= due and not stopping.is_set():
                due = time.time() + self.pause
                self.begin(self.think())
            self.wait(max(0.0, min(due - time.time(), self.pause)))
        for connection in self.connections:
            connection.close()

    def wait(self, patience):
        # What TLS has deciphered already makes no socket readable.
        ready = [c for c in self.connections if c.socket.pending()]
        if not ready:
            found, _, _ = select.select([c.socket for c in self.connections], [], [], patience)
            ready = [c for c in self.connections if c.socket in found]
        ended = [told for c in ready for told in c.receive()]
        ended += [told for c in self.connections for told in c.forget(PATIENCE)]
        for (what, thought), fields, body, failure, again in ended:
            if again:
                self.again += 1
                self.begin(thought)
            else:
                self.tell(what, fields, body, failure)
        for connection in [c for c in self.connections if c.is_over or (c.is_leaving and not c.streams)]:
            connection.close()
            self.connections.remove(connection)


def tls_socket(address, context, name):
    plain = socket.create_connection(address, timeout=10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname=name)
