"""Pipelined requests on one connection at a time:  pipeline.py URL ID-A ID-B CA-FILE COUNT

Sends batches of 2 to 9 requests with their bodies in one write. The answers must come in order. A relay may end a connection
cleanly before an answer: unanswered requests are sent again on a new connection.
"""

import base64
import socket
import ssl
import sys
from urllib.parse import urlsplit

from plan import Check, Request


def connect(url, ca):
    plain = socket.create_connection((url.hostname, url.port), 60)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if url.scheme == 'http':
        return plain
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    # EOF without close_notify must be an error.
    return context.wrap_socket(plain, suppress_ragged_eofs=False)


def octets(request, ids):
    credentials = base64.b64encode(f'{ids[request.to]}:any'.encode()).decode()
    length = f'Content-Length: {len(request.body)}\r\n' if request.body else ''
    head = f'{request.method} {request.target} HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {credentials}\r\n{length}\r\n'
    return head.encode() + request.body


def read(source):
    """Reads one answer; None if the connection has ended before it."""
    line = source.readline()
    if not line:
        return None
    status = int(line.split(b' ')[1])
    length = 0
    while (line := source.readline()).strip():
        name, value = line.split(b':', 1)
        if name.lower() == b'content-length':
            length = int(value)
    return status, source.read(length).decode()


def main():
    url, id_a, id_b, ca, count = sys.argv[1:]
    url, ids = urlsplit(url), {'a': id_a, 'b': id_b}
    plan = [Request(number) for number in range(int(count))]
    check = Check()
    connections, without_answer = 0, 0
    connection = source = None
    at = 0
    while at < len(plan):
        batch = plan[at:at + 2 + at % 8]
        if connection is None:
            connection = connect(url, ca)
            source = connection.makefile('rb')
            connections += 1
        answered = 0
        try:
            connection.sendall(b''.join(octets(request, ids) for request in batch))
            while answered < len(batch) and (got := read(source)):
                check.add(batch[answered], *got)
                answered += 1
        except OSError as error:
            check.wrong.append(f'connection {connections}, behind {answered} answers: {error!r}')
        at += answered
        if answered < len(batch):
            source.close()
            connection.close()
            connection = None
        without_answer = 0 if answered else without_answer + 1
        if without_answer > 2:
            check.wrong.append(f'{batch[0].target}: three connections ended without an answer')
            break
    print(f'{connections} connections made')
    check.exit()


if __name__ == '__main__':
    main()
