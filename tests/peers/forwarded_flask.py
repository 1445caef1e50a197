#!/usr/bin/env python3
"""A page with a form, by Flask, set up as the manual says for 'rendezvous agent --forwarded'. It prints
'listening PORT'. Its pages are those of forwarded_django.py. It checks the token and the Origin itself.
"""

import logging

from flask import Flask, abort, redirect, request, url_for
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import WSGIRequestHandler, make_server

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)


@app.get("/form")
def form():
    return "token"


@app.post("/form")
def sent():
    if request.form.get("csrfmiddlewaretoken") != "token":
        abort(403)
    if request.headers.get("Origin") != request.host_url.rstrip("/"):
        abort(403)
    return redirect(url_for("done", _external=True))


@app.get("/done")
def done():
    return f"{request.remote_addr} {request.scheme} {request.host}\n"


logging.getLogger("werkzeug").setLevel(logging.ERROR)
WSGIRequestHandler.protocol_version = "HTTP/1.1"
server = make_server("127.0.0.1", 0, app, threaded=True)
print("listening", server.server_port, flush=True)
server.serve_forever()
