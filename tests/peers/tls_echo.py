"""A TLS service that sends back what it gets: CERTIFICATE KEY. Prints its port."""
import socket
import ssl
import sys
import threading

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)


def echo(client):
    try:
        with context.wrap_socket(client, server_side=True) as tls:
            while data := tls.recv(16384):
                tls.sendall(data)
    except OSError:
        pass


while True:
    client, _ = listener.accept()
    threading.Thread(target=echo, args=(client,), daemon=True).start()
