#!/usr/bin/env python3
"""A page with a form, by Django, set up as the manual says for 'rendezvous agent --forwarded'. It prints
'listening PORT'.

GET /form has the form and Django's token; POST /form redirects to the outside address of /done, if Django accepts the
token and the Origin; GET /done shows what Django knows of the client.
"""

import sys

import django
from django.conf import settings
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    USE_X_FORWARDED_HOST=True,
    SECURE_SSL_REDIRECT=True,
    CSRF_COOKIE_SECURE=True,
)


def form(request):
    if request.method == "POST":
        return HttpResponseRedirect(request.build_absolute_uri("/done"))
    return HttpResponse(get_token(request))


def done(request):
    client = request.headers.get("X-Forwarded-For", "nobody")
    return HttpResponse(f"{client} {request.scheme} {request.get_host()}\n")


urlpatterns = [path("form", form), path("done", done)]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


django.setup()
server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
server.set_app(get_wsgi_application())
print("listening", server.server_port, flush=True)
sys.stdout.flush()
server.serve_forever()
