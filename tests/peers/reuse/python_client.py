"""A Python library's pool of connections:

python_client.py requests|requests-digest|httpx|httpx-digest|aiohttp|aiohttp-digest|urllib3 URL ID-A ID-B CA-FILE COUNT
"""

import asyncio
import ssl
import sys
from base64 import b64encode

from plan import Check, Request


def with_requests(plan, url, ids, ca, digest):
    import requests
    from requests.auth import HTTPBasicAuth, HTTPDigestAuth

    auth = {name: (HTTPDigestAuth if digest else HTTPBasicAuth)(uuid, 'any') for name, uuid in ids.items()}
    session = requests.Session()
    session.trust_env = False
    session.verify = ca
    for request in plan:
        answer = session.request(request.method, url + request.target, data=request.body or None,
                                 auth=auth[request.to], timeout=60)
        yield request, answer.status_code, answer.text


def with_httpx(plan, url, ids, ca, digest):
    import httpx

    auth = {name: (httpx.DigestAuth if digest else httpx.BasicAuth)(uuid, 'any') for name, uuid in ids.items()}
    with httpx.Client(verify=ssl.create_default_context(cafile=ca), trust_env=False, timeout=60) as client:
        for request in plan:
            answer = client.request(request.method, url + request.target, content=request.body or None,
                                    auth=auth[request.to])
            yield request, answer.status_code, answer.text


def with_urllib3(plan, url, ids, ca, _):
    import urllib3

    pool = urllib3.PoolManager(num_pools=1, maxsize=1, ca_certs=ca)
    for request in plan:
        fields = urllib3.make_headers(basic_auth=f'{ids[request.to]}:any')
        answer = pool.request(request.method, url + request.target, body=request.body or None, headers=fields,
                              timeout=60)
        yield request, answer.status, answer.data.decode()


async def with_aiohttp(plan, url, ids, ca, digest):
    import aiohttp

    middlewares = {}
    fields = {name: {'Authorization': f'Basic {b64encode(f"{uuid}:any".encode()).decode()}'} for name, uuid in ids.items()}
    if digest:
        middlewares = {name: (aiohttp.DigestAuthMiddleware(uuid, 'any'),) for name, uuid in ids.items()}
        fields = {}
    connector = aiohttp.TCPConnector(limit=1, ssl=ssl.create_default_context(cafile=ca))
    answers = []
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        for request in plan:
            async with session.request(request.method, url + request.target, data=request.body or None,
                                       headers=fields.get(request.to),
                                       middlewares=middlewares.get(request.to)) as answer:
                answers.append((request, answer.status, await answer.text()))
    return answers


def main():
    mode, url, id_a, id_b, ca, count = sys.argv[1:]
    library, _, digest = mode.partition('-')
    plan = [Request(number) for number in range(int(count))]
    arguments = (plan, url, {'a': id_a, 'b': id_b}, ca, bool(digest))
    if library == 'aiohttp':
        answers = asyncio.run(with_aiohttp(*arguments))
    else:
        answers = {'requests': with_requests, 'httpx': with_httpx, 'urllib3': with_urllib3}[library](*arguments)
    check = Check()
    for request, status, text in answers:
        check.add(request, status, text)
    check.exit()


if __name__ == '__main__':
    main()
