"""A gRPC server with the health service; `up` and `down` on standard input say how it is.

Prints its port. Ends with its input.
"""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

STATUSES = {
    "up": health_pb2.HealthCheckResponse.SERVING,
    "down": health_pb2.HealthCheckResponse.NOT_SERVING,
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
servicer.set("shop.Cart", STATUSES["down"])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
for line in sys.stdin:
    servicer.set("shop.Cart", STATUSES[line.strip()])
server.stop(None)
