"""An echo by the `websockets` library: `serve` prints its port and ends with its input; `call PORT CA`
talks to it through Evenkeel, over TLS, and says `fine`.
"""

import asyncio
import ssl
import sys

import websockets


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def call(port, ca):
    context = ssl.create_default_context(cafile=ca)
    url = f"wss://localhost:{port}/echo"
    async with websockets.connect(url, ssl=context, max_size=None) as socket:
        for size in (0, 1, 125, 126, 65536, 3_000_000):
            for message in ("x" * size, bytes(size)):
                await socket.send(message)
                assert await socket.recv() == message, size
        pong = await socket.ping()
        await pong
    assert socket.close_code == 1000, socket.close_code
    print("fine")


asyncio.run(serve() if sys.argv[1] == "serve" else call(*sys.argv[2:]))
