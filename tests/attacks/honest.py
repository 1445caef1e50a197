"""A relay, an agent and a page behind it, and honest clients with addresses from all of 127.0.0.0/8."""

import http.server
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

RATE = 50
PATIENCE = 10


class Page(http.server.BaseHTTPRequestHandler):
    """Answers GET with the path."""

    def do_GET(self):
        body = self.path.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Service(http.server.ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True


class Times:
    """The results of a run of honest clients, with times in milliseconds."""

    def __init__(self, times, failed):
        self.times, self.failed = sorted(times), failed
        self.p50, self.p99 = self.quantile(0.5), self.quantile(0.99)

    def quantile(self, part):
        return self.times[min(int(len(self.times) * part), len(self.times) - 1)] if self.times else float('inf')

    def __str__(self):
        return f'{len(self.times)} answered, {len(self.failed)} not, p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms'


def await_line(path, pattern, process):
    """Awaits the first match in a growing log."""
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        if match := re.search(pattern, path.read_text()):
            return match
        time.sleep(0.05)
    raise SystemExit(f'{path} never said {pattern!r}:\n{path.read_text()[-2000:]}')


def start(command, log):
    """A program whose log goes into a file."""
    environment = {name: value for name, value in os.environ.items() if name != 'RUST_LOG'}
    with open(log, 'w', encoding='utf-8') as out:
        return subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment)


class Honest:
    """Relay, agent and page during a `with` block."""

    def __init__(self, relay, folder, options):
        self.number = 0
        self.programs = []
        self.service = Service(('127.0.0.1', 0), Page)
        threading.Thread(target=self.service.serve_forever, daemon=True).start()
        state, ticket = str(folder / 'state'), str(folder / 'home.ticket')
        serve = [relay, 'serve', '--listen', '127.0.0.1:0', '--state', state, '--log', 'info', *options]
        self.relay = start(serve, folder / 'relay.log')
        self.programs.append(self.relay)
        listening = await_line(folder / 'relay.log', r'listening on=127\.0\.0\.1:(\d+)[^$]*event=ready', self.relay)
        self.port = int(listening[1])
        add = [relay, 'id', 'add', 'home', '--relay', f'https://127.0.0.1:{self.port}', '--state', state, '--out', ticket]
        subprocess.run(add, check=True, capture_output=True)
        uuid = re.search(r'rendezvous:([0-9a-f-]{36})', (folder / 'home.ticket').read_text())[1]
        self.credential = b64encode(f'{uuid}:'.encode()).decode()
        await_line(folder / 'relay.log', r'event=ids count=1|event=ids.* count=1', self.relay)
        to = f'127.0.0.1:{self.service.server_port}'
        agent = start([relay, 'agent', '--ticket', ticket, '--to', to, '--pool', '16'], folder / 'agent.log')
        self.programs.append(agent)
        await_line(folder / 'agent.log', 'event=waiting ', agent)
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            program.wait()
        self.service.shutdown()

    def ask(self, number):
        """Runs one honest client. Returns its time in milliseconds."""
        begun = time.monotonic()
        source = (f'127.{number % 200 + 1}.{number // 200 % 250}.9', 0)
        with socket.create_connection(('127.0.0.1', self.port), PATIENCE, source) as plain:
            with self.tls.wrap_socket(plain, server_hostname='localhost') as client:
                client.sendall(f'GET /{number} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {self.credential}'
                               '\r\n\r\n'.encode())
                answer = b''
                while part := client.recv(65536):
                    answer += part
        if not answer.startswith(b'HTTP/1.') or not answer.endswith(f'\r\n\r\n/{number}'.encode()):
            raise OSError(f'answered {answer[:100]!r}')
        return (time.monotonic() - begun) * 1000

    def run(self, seconds):
        """Runs honest clients for this many seconds."""
        futures = []
        with ThreadPoolExecutor(64) as threads:
            begun = time.monotonic()
            for turn in range(seconds * RATE):
                time.sleep(max(0, begun + turn / RATE - time.monotonic()))
                self.number += 1
                futures.append(threads.submit(self.ask, self.number))
        failed = [repr(future.exception()) for future in futures if future.exception()]
        return Times([future.result() for future in futures if not future.exception()], failed)
