"""A WebSocket server that echoes messages; prints `listening PORT`."""

import asyncio

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print("listening", server.sockets[0].getsockname()[1])
        await server.serve_forever()


asyncio.run(main())
