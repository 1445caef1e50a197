#!/usr/bin/env python3
"""Measures what a scrape of 1,001 IDs each second costs a relay: CPU, and the latency of requests. By hand, on a quiet
machine, with a release build:

    cargo build --release && RENDEZVOUS=target/release/rendezvous tests/benches/scrape.py [SECONDS]
"""
import http.client
import http.server
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

BINARY = os.environ.get('RENDEZVOUS', 'target/release/rendezvous')
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
PER_SECOND = 100


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')

    def log_message(self, *_):
        pass


def start(folder):
    state = os.path.join(folder, 'state')
    ticket = os.path.join(folder, 'home.ticket')
    os.mkdir(state, 0o700)
    subprocess.run([BINARY, 'id', 'add', 'home', '--relay', 'https://127.0.0.1:1', '--label', 'home', '--state', state,
                    '--out', ticket], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ids = os.path.join(state, 'ids')
    with open(ids) as file:
        line = next(line for line in file if line.startswith('home '))
    identity = re.search(r'[0-9a-f-]{36}', line).group()
    other = line.replace('home ', 'NAME ', 1).replace(identity, 'ID').replace('label=home', '')
    with open(ids, 'a') as file:
        for number in range(1000):
            file.write(other.replace('NAME', f'server-{number:04}').replace('ID', f'00000000-0000-4000-8000-{number:012}'))
    relay = subprocess.Popen([BINARY, 'serve', '--listen', '127.0.0.1:0', '--listen-plain', '127.0.0.1:0', '--domain',
                              'relay.test', '--state', state, '--metrics', '127.0.0.1:0', '--log', 'info'],
                             stderr=subprocess.PIPE, text=True)
    addresses = {}
    for line in relay.stderr:
        for what, pattern in (('metrics', r'kind=metrics on=(\S+)'), ('tls', r'on=(\S+) tls=yes'), ('plain', r'on=(\S+) tls=no')):
            if found := re.search(pattern, line):
                addresses[what] = found.group(1)
        if 'event=ready' in line:
            break
    threading.Thread(target=lambda: [None for _ in relay.stderr], daemon=True).start()
    with open(ticket) as file:
        text = file.read().replace('127.0.0.1:1\n', addresses['tls'] + '\n')
    with open(ticket, 'w') as file:
        file.write(text)
    service = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Service)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    agent = subprocess.Popen([BINARY, 'agent', '--ticket', ticket, '--to', f'127.0.0.1:{service.server_port}'],
                             stderr=subprocess.DEVNULL)
    return relay, agent, addresses


def cpu(process):
    with open(f'/proc/{process.pid}/stat') as file:
        fields = file.read().rsplit(') ', 1)[1].split(' ')
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def requests(address, seconds):
    """The latency of requests on one connection, at a fixed rate."""
    connection = http.client.HTTPConnection(address, timeout=30)
    times = []
    begin = time.monotonic()
    for number in range(seconds * PER_SECOND):
        time.sleep(max(0, begin + number / PER_SECOND - time.monotonic()))
        start = time.monotonic()
        connection.request('GET', '/', headers={'Host': 'home.relay.test'})
        assert connection.getresponse().read() == b'ok'
        times.append(time.monotonic() - start)
    return sorted(times)


def scrape(address, until, sizes):
    connection = http.client.HTTPConnection(address, timeout=30)
    due = time.monotonic()
    while due < until:
        time.sleep(max(0, due - time.monotonic()))
        connection.request('GET', '/metrics', headers={'Accept': 'application/openmetrics-text;version=1.0.0'})
        sizes.append(len(connection.getresponse().read()))
        due += 1


def main():
    with tempfile.TemporaryDirectory() as folder:
        relay, agent, addresses = start(folder)
        try:
            time.sleep(2)
            requests(addresses['plain'], 2)
            for name, scrapes in (('without scrapes', False), ('a scrape each second', True), ('without scrapes', False)):
                sizes, before, begin = [], cpu(relay), time.monotonic()
                scraper = threading.Thread(target=scrape, args=(addresses['metrics'], begin + SECONDS, sizes))
                if scrapes:
                    scraper.start()
                times = requests(addresses['plain'], SECONDS)
                if scrapes:
                    scraper.join()
                used = (cpu(relay) - before) / (time.monotonic() - begin)
                rank = lambda part: 1000 * times[min(len(times) - 1, int(len(times) * part))]
                print(f'{name}: CPU {100 * used:.2f} %, p50 {rank(0.5):.2f} ms, p99 {rank(0.99):.2f} ms, '
                      f'{len(sizes)} scrapes of {max(sizes, default=0)} bytes')
        finally:
            for each in (agent, relay):
                each.terminate()
                each.wait()


main()
