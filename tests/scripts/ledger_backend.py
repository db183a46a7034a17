"""A backend in a process of its own that writes each `X-Id` that came whole to standard output.

ledger_backend.py PORT: HTTP/1.1, kept alive, 200 to everything.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


# Lines of several threads would run into each other.
ONE_AT_A_TIME = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "X-Id" in self.headers:
            with ONE_AT_A_TIME:
                print(self.headers["X-Id"], flush=True)
        body = b"villain\n"
        self.send_response(200)
        self.send_header("X-Backend", "villain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
