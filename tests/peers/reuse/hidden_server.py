"""A hidden server's HTTP service:  hidden_server.py NAME FOREIGN-ID

Answers each request with `plan.answer`, any number of them on one connection, pipelined ones too. A request that was meant for
another hidden server, and every occurrence of the other one's ID, is reported in a line that begins with 'misled'.
"""

import base64
import socket
import sys
import threading

from plan import answer


def say(line):
    sys.stdout.write(line + '\n')
    sys.stdout.flush()


def read_body(source, fields):
    if fields.get('transfer-encoding', '').lower() != 'chunked':
        return source.read(int(fields.get('content-length', 0)))
    body = b''
    while size := int(source.readline().split(b';')[0], 16):
        body += source.read(size)
        source.readline()
    while source.readline().strip():
        pass
    return body


def serve(connection, name, foreign):
    with connection, connection.makefile('rb') as source:
        while line := source.readline():
            method, target, _ = line.decode('latin-1').split(' ')
            head = [line]
            while (line := source.readline()).strip():
                head.append(line)
            fields = dict(field.decode('latin-1').lower().split(':', 1) for field in head[1:])
            fields = {key: value.strip() for key, value in fields.items()}
            if fields.get('expect') == '100-continue':
                connection.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
            body = read_body(source, fields)
            # A browser requests the icon of every hidden server.
            own = target.startswith(f'/{name}/') or target == '/favicon.ico'
            if not own or body and not body.startswith(f'for-{name}-'.encode()):
                say(f'misled: {method} {target}')
            elif any(text in part for part in head for text in foreign):
                say(f'misled: {method} {target} carries the ID of another hidden server')
            text = answer(name, method, target, body)
            page = '' if method == 'HEAD' else text
            connection.sendall(f'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}'
                               f'\r\n\r\n{page}'.encode())


def guarded(connection, name, foreign):
    try:
        serve(connection, name, foreign)
    except (OSError, ValueError) as error:
        say(f'ended: {error!r}')


def main():
    name, uuid = sys.argv[1:]
    # The user name in Digest, and in Basic, where its last characters depend on what follows.
    foreign = [uuid.encode(), base64.b64encode(uuid.encode())[:40]]
    listener = socket.create_server(('127.0.0.1', 0), backlog=512)
    say(f'listening {listener.getsockname()[1]}')
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=guarded, args=(connection, name, foreign), daemon=True).start()


if __name__ == '__main__':
    main()
