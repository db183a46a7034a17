"""A gRPC server of bytes: `grpc_server.py NAME [CERT KEY]`. What to do comes in a call's metadata.

Prints its port, and `cancelled` for each call that was given up. Ends with its input.
"""

import hashlib
import sys
import threading
import time
from concurrent import futures

import grpc

NAME = sys.argv[1]


def begin(context):
    """Says who answers, and gives what the caller asks for."""
    wanted = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-backend", NAME),))
    context.set_trailing_metadata((("x-trailer", NAME), ("x-data-bin", b"\x00\xff\x01")))
    return wanted


def unary(request, context):
    wanted = begin(context)
    if "fail" in wanted:
        context.abort(grpc.StatusCode[wanted["fail"]], "as you \u00fcwish, 100 %")
    if "sleep" in wanted:
        time.sleep(float(wanted["sleep"]))
    if "hang" in wanted:
        hang(context)
    return request


def hang(context):
    """Until the call is given up."""
    done = threading.Event()
    context.add_callback(done.set)
    if done.wait(60):
        print("cancelled", flush=True)


def server_stream(request, context):
    wanted = begin(context)
    if "hang" in wanted:
        return hang(context)
    count, size = int(wanted["count"]), int(wanted["size"])
    for n in range(count):
        if n == 1:
            time.sleep(float(wanted.get("silent", 0)))
        yield bytes([n % 256]) * size
    if "fail" in wanted:
        context.abort(grpc.StatusCode[wanted["fail"]], "after the fact")


def client_stream(requests, context):
    begin(context)
    digest, length = hashlib.sha256(), 0
    for request in requests:
        digest.update(request)
        length += len(request)
    return f"{length} {digest.hexdigest()}".encode()


def both(requests, context):
    begin(context)
    for request in requests:
        yield request


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Both": grpc.stream_stream_rpc_method_handler(both),
}
server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=32),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", METHODS),))
if len(sys.argv) > 2:
    cert, key = (open(file, "rb").read() for file in sys.argv[2:])
    credentials = grpc.ssl_server_credentials([(key, cert)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
for _ in sys.stdin:
    pass
server.stop(None)
