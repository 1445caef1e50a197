"""A client that ends its side first and then reads to the end, on OpenSSL's TLS.

    ends_first.py PORT ID 1.2|1.3 CA-FILE

Prints the TLS version, the number of bytes after its own end, and their SHA-256. Fails if the other
side's end is not clean.
"""

import base64
import hashlib
import socket
import ssl
import sys

port, uuid, version, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
exact = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
context.minimum_version = context.maximum_version = exact

tcp = socket.create_connection(("127.0.0.1", int(port)), timeout=30)
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
# In memory, `unwrap` sends the end and the session still reads: a wrapped socket would wait in it.
tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")


def flush():
    if outgoing.pending:
        tcp.sendall(outgoing.read())


def step(call, *args):
    while True:
        try:
            result = call(*args)
            flush()
            return result
        except ssl.SSLWantReadError:
            flush()
            octets = tcp.recv(65536)
            if octets:
                incoming.write(octets)
            else:
                incoming.write_eof()


step(tls.do_handshake)
credentials = base64.b64encode(uuid.encode() + b":").decode()
step(tls.write, f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n\r\n".encode())
try:
    tls.unwrap()
except ssl.SSLWantReadError:
    pass
flush()
tcp.shutdown(socket.SHUT_WR)

size, total = 0, hashlib.sha256()
while True:
    try:
        octets = step(tls.read, 65536)
    except ssl.SSLZeroReturnError:
        break
    if not octets:
        break
    size += len(octets)
    total.update(octets)
print(tls.version(), size, total.hexdigest())
