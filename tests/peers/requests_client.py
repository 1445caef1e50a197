"""requests with HTTPDigestAuth:  requests_client.py URL ID CA-FILE"""

import sys

import requests
from requests.auth import HTTPDigestAuth

url, uuid, ca = sys.argv[1:]
session = requests.Session()
session.trust_env = False
session.verify = ca
session.auth = HTTPDigestAuth(uuid, "any")

for target in ("/get", "/again"):
    answer = session.get(url + target, timeout=30)
    answer.raise_for_status()
    sys.stdout.write(answer.text)
answer = session.post(url + "/post", data=b"x" * (10 << 20), timeout=60)
answer.raise_for_status()
sys.stdout.write(answer.text)
print("done")
