#!/usr/bin/env python3
"""Submits the form of forwarded_django.py or forwarded_flask.py, as a browser does, from an address of its own:

    forwarded_client.py URL ID CA-FILE OWN-ADDRESS

Every request has forged forwarding fields. It prints the last page, and the status of a form from another origin.
"""

import sys

import requests
from requests.adapters import HTTPAdapter

url, uuid, ca, own = sys.argv[1:]
FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X_Forwarded_For": "203.0.113.9",
    "X-Forwarded-Host": "elsewhere.example",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/elsewhere",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;proto=http;host=elsewhere.example",
}


class From(HTTPAdapter):
    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, source_address=(own, 0), **kwargs)


session = requests.Session()
session.trust_env = False
session.verify = ca
session.auth = (uuid, "any")
session.headers.update(FORGED)
session.mount("https://", From())

answer = session.get(url + "/form", timeout=30)
answer.raise_for_status()
token = answer.text
fields = {"csrfmiddlewaretoken": token, "x": "y"}
answer = session.post(url + "/form", data=fields, headers={"Origin": url, "Referer": url + "/form"}, timeout=30)
answer.raise_for_status()
sys.stdout.write(answer.text)
# From another origin the form is refused.
wrong = session.post(url + "/form", data=fields, headers={"Origin": "https://elsewhere.example"}, timeout=30)
print(wrong.status_code)
