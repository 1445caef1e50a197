"""requests at an agent that requires a password:  password_client.py URL CA-FILE"""

import sys

import requests

url, ca = sys.argv[1:]
for password in ("right", "right"):
    session = requests.Session()
    session.trust_env = False
    session.verify = ca
    session.headers["Host"] = "home.example.test"
    answer = session.get(url + "/1", timeout=30)
    print(answer.status_code, flush=True)
    # The same connection, now with a password.
    session.auth = ("anna", password)
    answer = session.get(url + "/2", timeout=30)
    answer.raise_for_status()
    sys.stdout.write(answer.text)
    assert session.get(url + "/3", auth=("anna", "wrong"), timeout=30).status_code == 401
    answer = session.post(url + "/4", data=b"hello", timeout=30)
    answer.raise_for_status()
    sys.stdout.write(answer.text)
print("done")
