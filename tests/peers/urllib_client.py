"""urllib, with one of its two handlers of a challenge: RELAY ID CA HANDLER."""

import ssl
import sys
import urllib.request

relay, user, ca, kind = sys.argv[1:]
passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
passwords.add_password(None, relay, user, "any")
handler = {
    "basic": urllib.request.HTTPBasicAuthHandler,
    "digest": urllib.request.HTTPDigestAuthHandler,
}[kind](passwords)
tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls, handler)
for target, body in [("/get", None), ("/post", b"a=1")]:
    with opener.open(relay + target, body, timeout=30) as answer:
        sys.stdout.write(answer.read().decode())
