"""Serves acme2certifier over TLS: server.py PORT CERTIFICATE KEY. Its configuration is ACME_SRV_CONFIGFILE. Prints each
request with its payload, and each response with its body."""

import base64
import io
import json
import ssl
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

from acme2certifier.share.acme2certifier_wsgi import application


def payload(body):
    """The payload of a JWS."""
    try:
        text = json.loads(body)["payload"]
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (ValueError, KeyError):
        return ""


def logged(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    # It makes its URLs from this.
    environ["HTTP_X_FORWARDED_PROTO"] = "https"
    status = []

    def start(line, fields, *more):
        status.append(f"{line.split()[0]} {dict(fields).get('Retry-After', '')}")
        return start_response(line, fields, *more)

    answer = b"".join(application(environ, start))
    request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {payload(body)}"
    print(request, "->", *status, " ".join(answer.decode().split())[:200], flush=True)
    return [answer]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


port, certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server = make_server("127.0.0.1", int(port), logged, handler_class=Quiet)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
