"""A local service that speaks TLS only: python3 tls_service.py CERT KEY [proxy]

Prints its port. Answers each connection's one request, which is read up to the client's end of stream or as far as
Content-Length says:

    SNI HOST LENGTH SHA256-OF-BODY

followed by the body itself. With 'proxy' a PROXY header of version 2 comes first, before TLS, and its family and address
are the first word of the answer instead of the SNI.
"""

import hashlib
import socket
import ssl
import sys
import threading


def exactly(connection, length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def serve(connection, context, proxy):
    word = None
    if proxy:
        header = exactly(connection, 16)
        assert header[:12] == b"\r\n\r\n\0\r\nQUIT\n", header
        rest = exactly(connection, int.from_bytes(header[14:16], "big"))
        word = socket.inet_ntoa(rest[:4]) if header[13] == 0x11 else "unknown"
    names = []
    # Each connection has its own context, so that the callback knows its connection.
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    tls = context.wrap_socket(connection, server_side=True)
    data = b""
    while b"\r\n\r\n" not in data:
        piece = tls.recv(65536)
        if not piece:
            return
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    length = int(fields["Content-Length"]) if "Content-Length" in fields else None
    while length is None or len(body) < length:
        piece = tls.recv(65536)
        if not piece:
            break
        body += piece
    word = word or (names[0] if names and names[0] else "-")
    line = f"{word} {fields['Host']} {len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()
    answer = line + body
    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(answer) + answer)
    # A clean end: our close_notify, then the client's.
    try:
        tls.unwrap().close()
    except (OSError, ValueError):
        tls.close()


def guarded(connection, cert, key, proxy):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    try:
        serve(connection, context, proxy)
    except (OSError, EOFError) as error:
        print(f"failed: {error}", file=sys.stderr, flush=True)
        connection.close()


def main():
    cert, key = sys.argv[1:3]
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=guarded, args=(connection, cert, key, "proxy" in sys.argv[3:]), daemon=True).start()


main()
