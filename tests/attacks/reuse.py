"""Clients that reuse connections, with two hidden servers behind one relay:  reuse.py RENDEZVOUS PYTHON [COUNT [CLIENT …]]

Each client sends COUNT requests that name the two hidden servers in turn. Findings are requests that reached the wrong one,
requests that their own did not answer, and a client that opened a connection for each request, which would test nothing.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from honest import await_line, start

PEERS = Path(__file__).parent.parent / 'peers/reuse'
PYTHON = sys.argv[2]


def python(script, *mode):
    return [PYTHON, str(PEERS / script), *mode]


# The clients, each with the program that it needs.
CLIENTS = {
    'curl-basic': ('curl', python('curl_client.py', 'basic')),
    'curl-digest': ('curl', python('curl_client.py', 'digest')),
    'curl-http1.1': ('curl', python('curl_client.py', 'http1.1')),
    'requests': ('python3', python('python_client.py', 'requests')),
    'requests-digest': ('python3', python('python_client.py', 'requests-digest')),
    'urllib3': ('python3', python('python_client.py', 'urllib3')),
    'httpx': ('python3', python('python_client.py', 'httpx')),
    'httpx-digest': ('python3', python('python_client.py', 'httpx-digest')),
    'aiohttp': ('python3', python('python_client.py', 'aiohttp')),
    'aiohttp-digest': ('python3', python('python_client.py', 'aiohttp-digest')),
    'pipeline': ('python3', python('pipeline.py')),
    'java-httpclient': ('java', ['java', str(PEERS / 'Reuse.java'), 'httpclient']),
    'java-urlconnection': ('java', ['java', str(PEERS / 'Reuse.java'), 'urlconnection']),
    'go': ('go', ['go', 'run', str(PEERS / 'reuse.go')]),
    'node': ('node', ['node', str(PEERS / 'reuse.js')]),
    'ruby': ('ruby', ['ruby', str(PEERS / 'reuse.rb')]),
    'chromium': ('chromedriver', python('browser.py', 'chromium')),
    'firefox': ('firefox-esr', python('browser.py', 'firefox')),
}


class Pair:
    """A relay and two hidden servers, 'a' and 'b'."""

    def __init__(self, rendezvous, folder):
        self.folder, self.programs = folder, []
        state = str(folder / 'state')
        self.ca = folder / 'state/relay.crt'
        serve = [rendezvous, 'serve', '--listen', '127.0.0.1:0', '--state', state, '--log-rate', '0']
        relay = self.start('relay', serve)
        listening = await_line(folder / 'relay.log', r'listening on=127\.0\.0\.1:(\d+)[^$]*event=ready', relay)
        self.url = f'https://127.0.0.1:{listening[1]}'
        self.ids = {}
        for name in 'ab':
            ticket = folder / f'{name}.ticket'
            subprocess.run([rendezvous, 'id', 'add', name, '--relay', self.url, '--state', state, '--out', str(ticket)],
                           check=True, capture_output=True)
            self.ids[name] = re.search(r'rendezvous:([0-9a-f-]{36})', ticket.read_text())[1]
        await_line(folder / 'relay.log', 'event=ids.* count=2', relay)
        for name, other in ('ab', 'ba'):
            service = self.start(f'service-{name}', [PYTHON, str(PEERS / 'hidden_server.py'), name, self.ids[other]])
            port = await_line(folder / f'service-{name}.log', r'listening (\d+)', service)[1]
            agent = self.start(f'agent-{name}', [rendezvous, 'agent', '--ticket', str(folder / f'{name}.ticket'), '--to',
                                                 f'127.0.0.1:{port}', '--pool', '8', '--log-rate', '0'])
            await_line(folder / f'agent-{name}.log', 'event=waiting ', agent)

    def start(self, name, command):
        self.programs.append(start(command, self.folder / f'{name}.log'))
        return self.programs[-1]

    def misled(self, since=(0, 0)):
        """Requests that reached the wrong service after the first ones, by service."""
        texts = [(self.folder / f'service-{name}.log').read_text() for name in 'ab']
        lines = [[line for line in text.splitlines() if line.startswith('misled')] for text in texts]
        return [own[first:] for own, first in zip(lines, since, strict=True)]

    def connections(self):
        """Pairs so far, and client connections in them."""
        pairs = re.findall(r'event=paired hidden=\S+ client=(\S+)', (self.folder / 'relay.log').read_text())
        return len(pairs), len(set(pairs))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            program.wait()


def try_client(pair, client, count):
    misled, (pairs, connections) = [len(lines) for lines in pair.misled()], pair.connections()
    begun = time.monotonic()
    command = [*CLIENTS[client][1], pair.url, pair.ids['a'], pair.ids['b'], str(pair.ca), str(count)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    took = time.monotonic() - begun
    wrong = sum(pair.misled(misled), [])
    now_pairs, now_connections = pair.connections()
    pairs, connections = now_pairs - pairs, now_connections - connections
    said = re.search(r'(\d+) answered by their own', run.stdout)
    print(f'{client}: {said[1] if said else 0} of {count} answered by their own hidden server, {len(wrong)} reached the wrong '
          f'one; {connections} connections, {pairs} pairs, {took:.1f} s', flush=True)
    if run.returncode:
        yield f'{client} exits {run.returncode}: {run.stderr[:1000]}'
    yield from (f'{client}: {line}' for line in wrong[:3])
    if connections > count // 2:
        yield f'{client}: {connections} connections for {count} requests: it reused none'


def main():
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    clients = sys.argv[4:] or list(CLIENTS)
    findings = []
    with tempfile.TemporaryDirectory() as folder, Pair(sys.argv[1], Path(folder)) as pair:
        for client in clients:
            if shutil.which(CLIENTS[client][0]):
                findings += try_client(pair, client, count)
            else:
                findings.append(f'{client}: {CLIENTS[client][0]} is not installed')
    for line in findings:
        print(f'reuse: {line}', file=sys.stderr)
    print(f'reuse: {"passed" if not findings else f"{len(findings)} findings"}')
    return bool(findings)


if __name__ == '__main__':
    sys.exit(main())
