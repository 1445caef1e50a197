"""A WebSocket client:  websocket_client.py wss://HOST:PORT/PATH?rendezvous=ID CA-FILE"""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect

url, ca = sys.argv[1:]


async def main():
    context = ssl.create_default_context(cafile=ca)
    async with connect(url, ssl=context, max_size=None, proxy=None, open_timeout=30) as connection:
        for number in range(100):
            message = f"{number} ".encode() * (1 + number * 50)
            await connection.send(message)
            assert await connection.recv() == message, number
        print("100 messages came back")


asyncio.run(main())
