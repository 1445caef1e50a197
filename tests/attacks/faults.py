"""Network faults: `faults.py RELAY NOXIOUS`, as root. Relay and clients are in one network namespace, agent and page in
another; both are removed at the end. iptables drops, loses and resets; noxious delays, slices and slows down."""

import hashlib
import http.server
import json
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path

from honest import await_line, start

NEAR, FAR = '10.213.0.1', '10.213.0.2'
RELAY, PROXY, PAGE = 8443, 8444, 8080
NOTICED = 45
MIB = 1 << 20


def octets(count):
    return random.Random(count).randbytes(count)


class Page(http.server.BaseHTTPRequestHandler):
    """Answers GET /N with N bytes. The client ends first, because noxious ends both directions at the first end."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        body = octets(int(self.path[1:]))
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def sh(*command, ok=True):
    return subprocess.run(command, check=ok, capture_output=True, text=True)


class World:
    """The two namespaces, with the relay in this one, and agent and page in the other."""

    def __init__(self, relay, noxious, folder):
        self.relay, self.noxious, self.folder, self.programs = relay, noxious, folder, []
        self.far_pid = self.began('unshare', '--net', 'sleep', 'infinity').pid
        own = os.readlink('/proc/self/ns/net')
        while os.readlink(f'/proc/{self.far_pid}/ns/net') == own:
            time.sleep(0.01)
        sh('ip', 'link', 'set', 'lo', 'up')
        sh('ip', 'link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far', 'netns', str(self.far_pid))
        sh('ip', 'address', 'add', f'{NEAR}/30', 'dev', 'near')
        sh('ip', 'link', 'set', 'near', 'up')
        self.far('ip', 'address', 'add', f'{FAR}/30', 'dev', 'far')
        self.far('ip', 'link', 'set', 'far', 'up')
        self.far('ip', 'link', 'set', 'lo', 'up')
        state = str(folder / 'state')
        self.log = folder / 'relay.log'
        # Before the relay starts, so that it reads the ID at startup.
        add = sh(relay, 'id', 'add', 'home', '--relay', f'https://{NEAR}:{RELAY}', '--state', state,
                 '--out', str(folder / 'home.ticket'), ok=False)
        if add.returncode:
            raise SystemExit(add.stderr)
        self.ticket = (folder / 'home.ticket').read_text()
        uuid = re.search(r'rendezvous:([0-9a-f-]{36})', self.ticket)[1]
        self.credential = b64encode(f'{uuid}:'.encode()).decode()
        self.serve = start([relay, 'serve', '--listen', f'{NEAR}:{RELAY}', '--state', state], self.log)
        self.programs.append(self.serve)
        await_line(self.log, 'event=ready', self.serve)
        page = self.far_prefix() + [sys.executable, __file__, 'page']
        self.programs.append(start(page, folder / 'page.log'))
        await_line(folder / 'page.log', 'ready', self.programs[-1])
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE

    def began(self, *command):
        self.programs.append(subprocess.Popen(command))
        return self.programs[-1]

    def far_prefix(self):
        return ['nsenter', '-t', str(self.far_pid), '-n']

    def far(self, *command, ok=True):
        return sh(*self.far_prefix(), *command, ok=ok)

    def ends(self):
        for program in reversed(self.programs):
            program.kill()
            program.wait()

    def agent(self, port=RELAY):
        """Starts the agent and awaits that it waits for clients. Returns its log."""
        ticket = self.folder / 'used.ticket'
        ticket.write_text(self.ticket.replace(f':{RELAY}', f':{port}', 1))
        ticket.chmod(0o600)
        log = self.folder / 'agent.log'
        program = start(self.far_prefix() + [self.relay, 'agent', '--ticket', str(ticket), '--to', f'127.0.0.1:{PAGE}'],
                        log)
        self.programs.append(program)
        await_line(log, 'event=waiting ', program)
        return program, log

    def proxy(self, *toxics):
        """Starts noxious in front of the relay, with these faults."""
        log = self.folder / 'noxious.log'
        words = [json.dumps(toxic | {'name': str(number), 'toxicity': 1.0}) for number, toxic in enumerate(toxics)]
        program = start([self.noxious, f'{NEAR}:{PROXY}', f'{NEAR}:{RELAY}', *words], log)
        self.programs.append(program)
        await_line(log, 'ready', program)
        return program

    def end(self, *programs):
        for program in programs:
            program.terminate()
            program.wait()
            self.programs.remove(program)

    def ask(self, count, port=RELAY, patience=120):
        """The connection of a client that requested this many bytes."""
        plain = socket.create_connection((NEAR, port), patience)
        # A truncation must differ from a clean end.
        client = self.tls.wrap_socket(plain, server_hostname='localhost', suppress_ragged_eofs=False)
        client.sendall(f'GET /{count} HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {self.credential}\r\n\r\n'.encode())
        return client

    def fetch(self, count, port=RELAY):
        """Fetches this many bytes and checks them. Returns the time."""
        begun = time.monotonic()
        with self.ask(count, port) as client:
            answer, behind = bytearray(), None
            while behind is None or len(answer) < behind + count:
                answer += client.recv(1 << 16) or self.cut(answer)
                if behind is None and (at := answer.find(b'\r\n\r\n')) >= 0:
                    behind = at + 4
        head, _, body = bytes(answer).partition(b'\r\n\r\n')
        if not head.startswith(b'HTTP/1.') or hashlib.sha256(body).digest() != hashlib.sha256(octets(count)).digest():
            raise OSError(f'{count} octets wanted, {len(body)} came behind {head[:40]!r}')
        return time.monotonic() - begun

    @staticmethod
    def cut(answer):
        raise OSError(f'an end behind {len(answer)} octets: {bytes(answer[:40])!r}')

    def count(self, log, text):
        return log.read_text().count(text)

    def resident(self):
        return int(re.search(r'VmRSS:\s+(\d+)', Path(f'/proc/{self.serve.pid}/status').read_text())[1]) // 1024


def silent_drop(world):
    """Both ends detect a path that drops everything."""
    agent, log = world.agent()
    world.fetch(1000)
    await_line(log, r'(event=waiting [^\n]*\n[^$]*){5}', agent)
    rules = [('INPUT', '-s', FAR, '-j', 'DROP'), ('OUTPUT', '-d', FAR, '-j', 'DROP')]
    ended, lost = world.count(world.log, 'event=waiting-ended'), world.count(log, 'event=relay-lost')
    for rule in rules:
        sh('iptables', '-I', *rule)
    begun, at = time.monotonic(), {}
    while len(at) < 2 and time.monotonic() - begun < 2 * NOTICED:
        if world.count(world.log, 'event=waiting-ended') >= ended + 4:
            at.setdefault('relay', time.monotonic() - begun)
        if world.count(log, 'event=relay-lost') > lost:
            at.setdefault('agent', time.monotonic() - begun)
        time.sleep(0.1)
    waiting = world.count(log, 'event=waiting ')
    for rule in rules:
        sh('iptables', '-D', *rule)
    begun = time.monotonic()
    while world.count(log, 'event=waiting ') == waiting and time.monotonic() - begun < 90:
        time.sleep(0.1)
    back = time.monotonic() - begun
    world.fetch(1000)
    world.end(agent)
    for end in ('relay', 'agent'):
        if at.get(end, 1000) >= NOTICED:
            raise OSError(f'the {end} noticed after {at.get(end)} s')
    return f"detected by the relay after {at['relay']:.1f} s, by the agent after {at['agent']:.1f} s; back in {back:.1f} s"


def loss(world):
    """A tenth of all packets is lost, in both directions."""
    agent, _ = world.agent()
    rule = ('INPUT', '-i', 'near', '-m', 'statistic', '--mode', 'random', '--probability', '0.1', '-j', 'DROP')
    sh('iptables', '-I', *rule)
    world.far('iptables', '-I', *['far' if word == 'near' else word for word in rule])
    try:
        times = [world.fetch(MIB // 4) for _ in range(20)]
    finally:
        sh('iptables', '-D', *rule)
        world.far('iptables', '-F', 'INPUT')
    world.end(agent)
    return f'20 fetches of 256 KiB, the slowest in {max(times):.1f} s'


def delay(world):
    """300 ms each way between agent and relay."""
    late = [{'type': 'latency', 'attributes': {'latency': 300, 'jitter': 0}, 'stream': way}
            for way in ('upstream', 'downstream')]
    proxy = world.proxy(*late)
    agent, _ = world.agent(PROXY)
    times = [world.fetch(count) for count in (1000, MIB, 1000)]
    world.end(agent, proxy)
    if min(times) < 0.6:
        raise OSError(f'no delay at all: {times}')
    return f'three fetches in {", ".join(f"{each:.1f} s" for each in times)}'


def reset(world):
    """The agent's connection is reset in the middle: the client sees no clean end."""
    agent, log = world.agent()
    rule = ('INPUT', '-p', 'tcp', '--sport', str(RELAY), '-j', 'REJECT', '--reject-with', 'tcp-reset')
    got, how = 0, None
    with world.ask(64 * MIB) as client:
        while got < MIB:
            got += len(client.recv(1 << 16))
        world.far('iptables', '-I', *rule)
        try:
            while part := client.recv(1 << 16):
                got += len(part)
        except OSError as error:
            how = error
    waiting = world.count(log, 'event=waiting ')
    world.far('iptables', '-D', *rule)
    begun = time.monotonic()
    while world.count(log, 'event=waiting ') == waiting and time.monotonic() - begun < 90:
        time.sleep(0.1)
    world.fetch(1000)
    world.end(agent)
    if how is None:
        raise OSError(f'a clean end after {got} octets of {64 * MIB}')
    return f'cut after {got} octets, and the client was told: {how}'


def single_octets(world):
    """Every byte is a segment of its own, on both sides of the relay."""
    sliced = [{'type': 'slicer', 'attributes': {'average_size': 1, 'size_variation': 0, 'delay': 0}, 'stream': way}
              for way in ('upstream', 'downstream')]
    proxy = world.proxy(*sliced)
    agent, _ = world.agent(PROXY)
    times = [world.fetch(count, PROXY) for count in (0, 1000, 5000)]
    world.end(agent, proxy)
    return f'three fetches, the longest {max(times):.1f} s'


def slow_reader(world):
    """One client reads 1 kB per second. The bulk of another is as fast as without it, and memory stays bounded."""
    proxy = world.proxy({'type': 'bandwidth', 'attributes': {'rate': 1}, 'stream': 'downstream'})
    agent, _ = world.agent()
    count = 64 * MIB
    world.fetch(count)
    alone, before = min(world.fetch(count) for _ in range(3)), world.resident()
    with world.ask(count, PROXY) as slow:
        slow.recv(1)
        beside = min(world.fetch(count) for _ in range(3))
        more = world.resident() - before
        # It continues to be served: it gets more than what was in transit.
        slow.recv(1)
    world.end(agent, proxy)
    if beside > 2 * alone or more > 48:
        raise OSError(f'64 MiB take {beside:.1f} s, {alone:.1f} s without a slow reader; {more} MiB more memory')
    return f'64 MiB in {beside:.1f} s beside it, {alone:.1f} s without; {more} MiB more memory'


def page():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', PAGE), Page)
    print('ready', flush=True)
    server.serve_forever()


def main():
    if sys.argv[1:] == ['page']:
        return page()
    if sys.argv[1] != 'inside':
        # A namespace that is removed with this process.
        os.execvp('unshare', ['unshare', '--net', sys.executable, __file__, 'inside', *sys.argv[1:]])
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        world = World(*sys.argv[2:4], Path(name))
        try:
            lasting = list(world.programs)
            for case in (silent_drop, loss, delay, reset, single_octets, slow_reader):
                try:
                    print(f'faults: {case.__name__}: {case(world)}', flush=True)
                except (OSError, subprocess.CalledProcessError) as error:
                    failed += 1
                    print(f'faults: {case.__name__}: FAILED: {error!r}', file=sys.stderr)
                    print((world.folder / 'agent.log').read_text()[-2000:], file=sys.stderr)
                    world.end(*[program for program in world.programs if program not in lasting])
        finally:
            world.ends()
    print(f'faults: {"passed" if not failed else f"{failed} failed"}')
    return failed > 0


if __name__ == '__main__':
    sys.exit(main())
