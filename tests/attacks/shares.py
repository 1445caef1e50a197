"""Attackers that hold memory, beside honest clients: `shares.py RELAY [COUNT [ADDRESSES]]`.

COUNT attackers (1000) from ADDRESSES source addresses (1) of each kind, one kind after the other:

* slow readers and drip readers of a large answer of ID `one`, of which they read nothing, or one byte per second;
* half heads and half ClientHellos;
* pipeliners, which send request after request without an ID and read no answer.

Meanwhile honest clients request a page of ID `two`, from addresses of their own and from the attackers' first address,
through the same relay and the same agent. All of them must be answered. The p99 must stay under 250 ms, or under three
times that without attackers. The memory of relay and agent must stay under `--buffer-memory` and 15 MB. It runs with the
defaults, and with `--buffer-memory 8M`.

RENDEZVOUS_RELAY=FILE tests/attacks/run shares tests another build. A build without shares answers no honest client while
slow readers stay; with the other kinds it answers late, or its memory grows.
"""

import multiprocessing
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from honest import Times, await_line, start

MEMORIES = {'the defaults': ([], 48), '--buffer-memory 8M': (['--buffer-memory', '8M'], 8)}
# Memory other than buffers, in MB: the program itself, and the connections.
BESIDE = 15
SECONDS = 20
RATE = 12
PATIENCE = 10
# The time in which all attackers connect.
GATHERING = 60
SERVICE = r"""
import asyncio, sys
BLOCK = b'x' * 65536
async def serve(reader, writer):
    try:
        head = await reader.readuntil(b'\r\n\r\n')
        large = b'/large' in head.split(b'\r\n')[0]
        length = 1024 * len(BLOCK) if large else 5
        writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n' % length)
        if large:
            for _ in range(1024):
                writer.write(BLOCK)
                await writer.drain()
        else:
            writer.write(b'small')
        await writer.drain()
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        pass
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 0, backlog=4096)
    print('listening on=%d' % server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

tls = ssl.create_default_context()
tls.check_hostname = False
tls.verify_mode = ssl.CERT_NONE


class Site:
    """A relay, one agent with two hidden servers, and their services during a `with` block."""

    def __init__(self, program, folder, options):
        self.programs = []
        state = str(folder / 'state')
        unlimited = ['--max-connections-per-address', '0', '--max-pairs', '10000']
        serve = [program, 'serve', '--listen', '127.0.0.1:0', '--state', state, '--log', 'info', *unlimited, *options]
        self.relay = start(serve, folder / 'relay.log')
        self.programs.append(self.relay)
        listening = await_line(folder / 'relay.log', r'listening on=127\.0\.0\.1:(\d+)[^$]*event=ready', self.relay)
        self.port = int(listening[1])
        tickets = []
        self.credentials = []
        for name in ['one', 'two']:
            ticket = folder / f'{name}.ticket'
            service = start([sys.executable, '-c', SERVICE], folder / f'{name}.log')
            self.programs.append(service)
            to = await_line(folder / f'{name}.log', r'listening on=(\d+)', service)[1]
            url = f'https://127.0.0.1:{self.port}'
            add = [program, 'id', 'add', name, '--relay', url, '--state', state, '--out', str(ticket)]
            subprocess.run(add, check=True, capture_output=True)
            uuid = re.search(r'rendezvous:([0-9a-f-]{36})', ticket.read_text())[1]
            self.credentials.append(b64encode(f'{uuid}:'.encode()).decode())
            tickets += ['--ticket', str(ticket), '--to', f'127.0.0.1:{to}']
        await_line(folder / 'relay.log', r'event=ids count=2', self.relay)
        self.agent = start([program, 'agent', *tickets, '--pool', '16'], folder / 'agent.log')
        self.programs.append(self.agent)
        await_line(folder / 'agent.log', r'event=waiting [^$]*event=waiting ', self.agent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.kill()
        for program in self.programs:
            program.wait()

    def request(self, which, path):
        return (f'GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {self.credentials[which]}\r\n'
                'Connection: close\r\n\r\n').encode()

    def connect(self, source, patience=PATIENCE, window=None):
        sock = socket.socket()
        sock.settimeout(patience)
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.bind((source, 0))
        sock.connect(('127.0.0.1', self.port))
        return sock

    def secure(self, *args):
        sock = self.connect(*args)
        try:
            return tls.wrap_socket(sock, server_hostname='localhost')
        except OSError:
            sock.close()
            raise

    def ask(self, source):
        """Runs one honest client. Returns its time in milliseconds."""
        begun = time.monotonic()
        with self.secure(source) as client:
            client.sendall(self.request(1, '/small'))
            answer = b''
            while part := client.recv(65536):
                answer += part
        if not answer.endswith(b'\r\n\r\nsmall'):
            raise OSError(f'answered {answer[:100]!r}')
        return (time.monotonic() - begun) * 1000

    def honest(self, seconds, sources):
        """Runs honest clients for this many seconds, from these addresses in turn."""
        futures = []
        with ThreadPoolExecutor(64) as threads:
            begun = time.monotonic()
            for turn in range(seconds * RATE):
                time.sleep(max(0, begun + turn / RATE - time.monotonic()))
                futures.append(threads.submit(self.ask, sources[turn % len(sources)]))
        failed = [repr(future.exception()) for future in futures if future.exception()]
        return Times([future.result() for future in futures if not future.exception()], failed)

    def memory(self):
        """The peak memory of relay and agent so far, in MB."""
        def peak(process):
            status = Path(f'/proc/{process.pid}/status').read_text()
            return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) / 1024
        return peak(self.relay), peak(self.agent)


class Attack:
    """Attackers of one kind, in a process of their own, during a `with` block."""

    def __init__(self, site, kind, count, addresses):
        self.site, self.over, self.peaks, self.count = site, False, (0, 0), count
        self.sources = [f'127.0.7.{number + 1}' for number in range(addresses)]
        self.there = multiprocessing.Value('i', 0)
        crowd = Crowd(site, kind, count, self.sources, self.there)
        self.process = multiprocessing.Process(target=crowd.stay, daemon=True)
        self.watcher = threading.Thread(target=self.look, daemon=True)

    def __enter__(self):
        self.process.start()
        self.watcher.start()
        until = time.monotonic() + GATHERING
        # Some are always disconnected, and reconnect.
        while time.monotonic() < until:
            time.sleep(0.1)
            if self.there.value >= self.count:
                break
        # Real attackers do not use the processors of the relay, its agent and the honest clients.
        for thread in Path(f'/proc/{self.process.pid}/task').iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)
        return self

    def __exit__(self, *_):
        self.over = True
        self.watcher.join()
        self.process.kill()
        self.process.join()

    def look(self):
        while not self.over:
            self.peaks = tuple(map(max, zip(self.peaks, self.site.memory())))
            time.sleep(0.2)


class Crowd:
    """The attackers."""

    def __init__(self, site, kind, count, sources, there):
        self.site, self.kind, self.sources, self.there = site, kind, sources, there
        self.socks, self.over, self.left = [], False, count
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.come, args=(number,), daemon=True) for number in range(16)]

    def stay(self):
        for thread in self.threads:
            thread.start()
        self.go_on()

    def come(self, number):
        """Starts the attackers, one after the other."""
        while not self.over and self.left > 0:
            with self.lock:
                self.left -= 1
            try:
                sock = KINDS[self.kind](self.site, self.sources[self.left % len(self.sources)])
                sock.setblocking(False)
                self.socks.append(sock)
            except OSError:
                with self.lock:
                    self.left += 1
                time.sleep(0.2)
            self.there.value = len(self.socks)

    def go_on(self):
        """Performs the attack once per second. Attackers that were disconnected reconnect."""
        while not self.over:
            gone = 0
            for sock in list(self.socks):
                try:
                    if self.kind == 'drip readers':
                        alive = sock.recv(1) != b''
                    elif self.kind == 'pipeliners':
                        sock.send(PIPELINE)
                        alive = True
                    else:
                        alive = not isinstance(sock, ssl.SSLSocket) or sock.pending() >= 0
                        fileno = sock.fileno()
                        with socket.socket(fileno=socket.dup(fileno)) as plain:
                            plain.setblocking(False)
                            if plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                                alive = False
                            elif self.kind in ('half heads', 'half ClientHellos'):
                                alive = plain.recv(1, socket.MSG_PEEK) != b''
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    alive = True
                except OSError:
                    alive = False
                if not alive:
                    self.socks.remove(sock)
                    sock.close()
                    gone += 1
                if self.over:
                    return
            if gone:
                with self.lock:
                    self.left += gone
                for number in range(len(self.threads)):
                    if not self.threads[number].is_alive() and not self.over:
                        self.threads[number] = threading.Thread(target=self.come, args=(number,), daemon=True)
                        self.threads[number].start()
            time.sleep(1)


PIPELINE = b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' * 1200
# Three records of a ClientHello that declares a greater length: a build without a limit keeps them all.
RECORD = bytes([22, 3, 1, 0x20, 0])
HELLO = RECORD + bytes([1, 0, 0x3f, 0xf0, 3, 3]) + bytes(8186) + RECORD + bytes(8180)


def reader(site, source):
    """A client with a small window that was not refused."""
    sock = site.secure(source, 5, 4096)
    sock.sendall(site.request(0, '/large'))
    sock.settimeout(1)
    try:
        if not sock.recv(12).startswith(b'HTTP/1.1 200'):
            sock.close()
            raise ConnectionError('refused')
    except TimeoutError:
        # There is no memory for its answer.
        pass
    return sock


def half_head(site, source):
    sock = site.secure(source, 5)
    sock.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\nX: ' + b'x' * 15_000)
    return sock


def half_hello(site, source):
    sock = site.connect(source, 5)
    sock.sendall(HELLO)
    return sock


def pipeliner(site, source):
    sock = site.secure(source, 5, 4096)
    sock.sendall(PIPELINE[:2000])
    return sock


KINDS = {
    'slow readers': reader,
    'drip readers': reader,
    'half heads': half_head,
    'half ClientHellos': half_hello,
    'pipeliners': pipeliner,
}


def main():
    program, count, addresses = (sys.argv[1:] + ['1000', '1'][len(sys.argv) - 2:])[:3]
    count, addresses = int(count), int(addresses)
    kinds = [kind for kind in KINDS if len(sys.argv) < 5 or kind in sys.argv[4:]]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    found = []
    for name, (options, megabytes) in MEMORIES.items():
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder, Site(program, Path(folder), options) as site:
                quiet = site.honest(SECONDS // 2, ['127.0.9.1'])
                with Attack(site, kind, count, addresses) as attack:
                    there = attack.there.value
                    during = site.honest(SECONDS, ['127.0.9.1', attack.sources[0]])
                    relay, agent = attack.peaks
                log = Path(folder, 'relay.log').read_text()
                cut = log.count('slow-reader')
            print(f'{name}, {there} {kind} from {addresses}: honest: {during}; quiet: p99 {quiet.p99:.1f} ms; '
                  f'relay {relay:.1f} MB, agent {agent:.1f} MB, {cut} slow readers cut', flush=True)
            what = f'{name}, {kind}'
            found += [f'{what}: unanswered: {why}' for why in during.failed[:3]]
            if during.p99 > max(250, 3 * quiet.p99):
                found.append(f'{what}: p99 {during.p99:.1f} ms, in quiet {quiet.p99:.1f} ms')
            # The agent's memory limit is always the default.
            for who, has, may in [('relay', relay, megabytes), ('agent', agent, 48)]:
                if has > may + BESIDE:
                    found.append(f'{what}: {who} takes {has:.1f} MB of {may} + {BESIDE}')
    for what in found:
        print(what)
    sys.exit(1 if found else 0)


if __name__ == '__main__':
    main()
