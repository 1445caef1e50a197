"""The services of the end-to-end clients' test:  services.py DIRECTORY

Prints `web PORT`, `rpc PORT` and `game PORT`:

* web: HTTP/1.1 in clear. `/` is a page, `PUT /sum` answers with the SHA-256 of the body, `/bytes?N` is N bytes, and `/ws` is a
  WebSocket that sends back what it gets.
* rpc: gRPC in clear: `/test.Echo/Once` sends back its message, `/test.Echo/Stream` each message of a stream.
* game: sends back each packet of 32 bytes, at once.
"""

import asyncio
import hashlib
import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from aiohttp import WSMsgType, web

BLOCK = bytes(itertools.islice(itertools.cycle(range(251)), 1 << 20))


async def page(request):
    return web.Response(text=f'page for {request.headers.get("Host", "")}\n')


async def put_sum(request):
    total = hashlib.sha256()
    async for part in request.content.iter_chunked(1 << 18):
        total.update(part)
    return web.Response(text=total.hexdigest() + '\n')


async def get_bytes(request):
    left = int(request.query_string)
    answer = web.StreamResponse(headers={'Content-Length': str(left)})
    await answer.prepare(request)
    while left:
        part = BLOCK[:left]
        await answer.write(part)
        left -= len(part)
    return answer


async def websocket(request):
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    async for message in answer:
        if message.type == WSMsgType.TEXT:
            await answer.send_str(message.data)
    return answer


def start_rpc():
    handlers = grpc.method_handlers_generic_handler('test.Echo', {
        'Once': grpc.unary_unary_rpc_method_handler(lambda message, _: message),
        'Stream': grpc.stream_stream_rpc_method_handler(lambda messages, _: messages),
    })
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port('127.0.0.1:0')
    server.start()
    return server, port


def play(client):
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client:
        while packet := client.recv(32, socket.MSG_WAITALL):
            client.sendall(packet)


def start_game():
    listener = socket.create_server(('127.0.0.1', 0))

    def accept():
        while True:
            threading.Thread(target=play, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


async def main():
    app = web.Application(client_max_size=1 << 40)
    app.add_routes([web.get('/', page), web.put('/sum', put_sum), web.get('/bytes', get_bytes), web.get('/ws', websocket)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0)
    await site.start()
    server, rpc = start_rpc()
    print(f'web {site._server.sockets[0].getsockname()[1]}')
    print(f'rpc {rpc}')
    print(f'game {start_game()}', flush=True)
    await asyncio.Event().wait()
    server.stop(None)


asyncio.run(main())
