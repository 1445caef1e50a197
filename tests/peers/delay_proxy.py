"""A TCP proxy with a delay: DELAY_MS PORT. Forwards connections to 127.0.0.1:PORT and prints where it listens. Each byte
and each end arrives DELAY_MS later, and a connection is open after two such delays. If the target refuses, the
connection is closed."""

import asyncio
import collections
import sys

DELAY = float(sys.argv[1]) / 1000
PORT = int(sys.argv[2])


async def carry(reader, writer):
    loop = asyncio.get_running_loop()
    under_way = collections.deque()
    arrived = asyncio.Event()

    async def deliver():
        while True:
            while not under_way:
                arrived.clear()
                await arrived.wait()
            due, data = under_way.popleft()
            await asyncio.sleep(due - loop.time())
            if not data:
                return writer.write_eof()
            writer.write(data)
            await writer.drain()

    async def receive():
        while True:
            data = await reader.read(65536)
            under_way.append((loop.time() + DELAY, data))
            arrived.set()
            if not data:
                return

    await asyncio.gather(receive(), deliver())


async def line(reader, writer):
    far = None
    try:
        await asyncio.sleep(2 * DELAY)
        far_reader, far = await asyncio.open_connection("127.0.0.1", PORT)
        await asyncio.gather(carry(reader, far), carry(far_reader, writer))
    except OSError:
        # One of the two has reset its connection: reset the other.
        for end in (writer, far):
            if end:
                end.transport.abort()
    finally:
        for end in (writer, far):
            if end:
                end.close()


async def main():
    server = await asyncio.start_server(line, "127.0.0.1", 0, backlog=1024)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
