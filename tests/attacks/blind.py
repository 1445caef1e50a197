"""Clients of hidden servers that the relay cannot read:  blind.py RENDEZVOUS PYTHON [BYTES]

Four hidden servers by name: `web`, whose agent terminates TLS; `rpc` and `h2`, whose agents terminate TLS and offer HTTP/2;
and `nas`, where nginx terminates TLS. And some by TCP ports of the relay: ssh, PostgreSQL, small packets, and a page. BYTES
(1 GB) go each way, in TLS 1.2 and 1.3, and by a port. A finding is a client that does not get what it should.
"""

import asyncio
import hashlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from websockets.asyncio.client import connect

from honest import await_line, start

PEERS = Path(__file__).parent.parent / 'peers'
sys.path.insert(0, str(PEERS / 'reuse'))
from browser import Chromium, Firefox  # noqa: E402

RENDEZVOUS, PYTHON = sys.argv[1:3]
BYTES = int(sys.argv[3]) if len(sys.argv) > 3 else 10**9
# Browsers take every name under `localhost` for this machine.
DOMAIN = 'relay.localhost'

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr notice;
events {{}}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4;
  scgi_temp_path {folder}/5;
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {folder}/nas.pem; ssl_certificate_key {folder}/nas.key;
    location / {{
      proxy_pass http://127.0.0.1:{web}; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
    location /test.Echo/ {{ grpc_pass grpc://127.0.0.1:{rpc}; }}
  }}
  server {{
    listen 127.0.0.1:{h2} http2;
    location / {{
      proxy_pass http://127.0.0.1:{web}; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header Host $http_host; proxy_set_header Connection '';
    }}
  }}
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
}}
"""


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=900, **options)
    if done.returncode:
        raise OSError(f'{command[0]} exits {done.returncode}: {done.stderr.decode(errors="replace")[-600:]}')
    return done.stdout.decode(errors='replace')


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return listener.getsockname()[1]


class Setting:
    """The relay, its agents and their services."""

    def __init__(self, folder):
        self.folder, self.programs = folder, []
        self.ca = folder / 'ca.pem'
        self.certify()
        services = self.start('services', [PYTHON, str(PEERS / 'blind/services.py'), str(folder)])
        said = await_line(folder / 'services.log', r'web (\d+)\s+rpc (\d+)\s+game (\d+)', services)
        self.web, self.rpc, self.game = (int(port) for port in said.groups())
        self.nginx, self.h2 = free_port(), free_port()
        ports = {'port': self.nginx, 'h2': self.h2, 'web': self.web, 'rpc': self.rpc}
        (folder / 'nginx.conf').write_text(NGINX.format(folder=folder, **ports))
        nginx = self.start('nginx', ['nginx', '-c', str(folder / 'nginx.conf'), '-e', 'stderr'])
        await_line(folder / 'nginx.log', 'using the "epoll" event method', nginx)
        self.ports = {name: free_port() for name in ('ssh', 'db', 'game', 'page')}
        self.state = str(folder / 'state')
        for name in ('web', 'rpc', 'h2', 'nas', *self.ports):
            more = ['--end-to-end'] if name not in self.ports else []
            run(RENDEZVOUS, 'id', 'add', name, '--relay', 'https://127.0.0.1:1', '--state', self.state, '--label', name,
                '--out', folder / f'{name}.ticket', *more)
        serve = [RENDEZVOUS, 'serve', '--listen', '127.0.0.1:0', '--domain', DOMAIN, '--state', self.state]
        for name, port in self.ports.items():
            serve += ['--tcp', f'127.0.0.1:{port}={name}']
        relay = self.start('relay', serve)
        self.port = int(await_line(folder / 'relay.log', r'listening on=127\.0\.0\.1:(\d+) tls=yes', relay)[1])
        self.start_agent('web', '--to', f'127.0.0.1:{self.web}', '--end-to-end', *self.own('web'))
        self.start_agent('rpc', '--to', f'127.0.0.1:{self.rpc}', '--end-to-end', '--to-h2', *self.own('rpc'))
        self.start_agent('h2', '--to', f'127.0.0.1:{self.h2}', '--end-to-end', '--to-h2', *self.own('h2'))
        self.start_agent('nas', '--tls-to', f'127.0.0.1:{self.nginx}')

    def certify(self):
        new = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
        run('openssl', 'req', '-x509', *new, '-days', '2', '-subj', '/CN=test CA', '-keyout', self.folder / 'ca.key', '-out',
            self.ca)
        for name in ('web', 'rpc', 'h2', 'nas'):
            (self.folder / 'ext').write_text(f'subjectAltName=DNS:{name}.{DOMAIN}\n')
            run('openssl', 'req', *new, '-subj', f'/CN={name}', '-keyout', self.folder / f'{name}.key', '-out',
                self.folder / 'csr')
            run('openssl', 'x509', '-req', '-days', '2', '-in', self.folder / 'csr', '-CA', self.ca, '-CAkey',
                self.folder / 'ca.key', '-CAcreateserial', '-extfile', self.folder / 'ext', '-out', self.folder / f'{name}.pem')

    def own(self, name):
        return ['--cert', str(self.folder / f'{name}.pem'), '--key', str(self.folder / f'{name}.key')]

    def start_agent(self, name, *options):
        ticket = self.folder / f'{name}.ticket'
        ticket.write_text(re.sub(r'(?m)^relay .*', f'relay https://127.0.0.1:{self.port}', ticket.read_text()))
        agent = self.start(f'agent-{name}', [RENDEZVOUS, 'agent', '--ticket', str(ticket), *options])
        await_line(self.folder / f'agent-{name}.log', 'event=waiting ', agent)

    def start(self, name, command):
        self.programs.append(start(command, self.folder / f'{name}.log'))
        return self.programs[-1]

    def url(self, name, path='/'):
        return f'https://{name}.{DOMAIN}:{self.port}{path}'

    def page(self, name):
        return f'page for {name}.{DOMAIN}:{self.port}\n'

    def context(self):
        return ssl.create_default_context(cafile=self.ca)

    def close(self):
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            program.wait()


def expect(got, wanted):
    if got != wanted:
        raise ValueError(f'{got[:300]!r} in place of {wanted[:300]!r}')


def curl(it, name, *options, path='/'):
    return run('curl', '-q', '-sS', '--max-time', '800', '--noproxy', '*', '--cacert', it.ca, '--resolve',
               f'{name}.{DOMAIN}:{it.port}:127.0.0.1', *options, it.url(name, path))


def curl_http2(it, name):
    version = '1.1' if name == 'web' else '2'
    expect(curl(it, name, '--http2', '-w', '%{http_version}'), it.page(name) + version)


def s_client(it, name):
    host = f'{name}.{DOMAIN}:{it.port}'
    # Its input stays open until the answer has come: at its end it would close the connection.
    request = f'GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n'.encode()
    command = ['openssl', 's_client', '-quiet', '-verify_return_error', '-CAfile', str(it.ca), '-connect',
               f'127.0.0.1:{it.port}', '-servername', f'{name}.{DOMAIN}']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        client.stdin.write(request)
        client.stdin.flush()
        got = client.stdout.read()
    expect(got.decode().partition('\r\n\r\n')[2], it.page(name))


def python_ssl(it, name):
    host = f'{name}.{DOMAIN}'
    with socket.create_connection(('127.0.0.1', it.port)) as tcp, it.context().wrap_socket(tcp, server_hostname=host) as tls:
        tls.sendall(f'GET / HTTP/1.1\r\nHost: {host}:{it.port}\r\nConnection: close\r\n\r\n'.encode())
        got = b''.join(iter(lambda: tls.recv(65536), b''))
    expect(got.decode().partition('\r\n\r\n')[2], it.page(name))


def java(it, name):
    hosts = it.folder / 'hosts'
    hosts.write_text(f'127.0.0.1 {name}.{DOMAIN}\n')
    version = 'HTTP_1_1' if name == 'web' else 'HTTP_2'
    got = run('java', f'-Djdk.net.hosts.file={hosts}', PEERS / 'blind/Get.java', it.url(name), it.ca)
    expect(got, f'{version} {it.page(name)}')


def go(it, name):
    version = 'HTTP/1.1' if name == 'web' else 'HTTP/2.0'
    got = run('go', 'run', PEERS / 'blind/get.go', it.url(name), it.ca, f'127.0.0.1:{it.port}')
    expect(got, f'{version} {it.page(name)}')


def rpc(it, name):
    credentials = grpc.ssl_channel_credentials(it.ca.read_bytes())
    authority = f'{name}.{DOMAIN}'
    options = [('grpc.ssl_target_name_override', authority), ('grpc.default_authority', authority)]
    with grpc.secure_channel(f'ipv4:127.0.0.1:{it.port}', credentials, options) as channel:
        expect(channel.unary_unary('/test.Echo/Once')(b'one', timeout=30), b'one')
        messages = [b'%d' % number * 1000 for number in range(200)]
        expect(list(channel.stream_stream('/test.Echo/Stream')(iter(messages), timeout=60)), messages)


def websocket(it, name):
    async def talk():
        url = it.url(name, '/ws').replace('https', 'wss')
        async with connect(url, ssl=it.context(), host='127.0.0.1', port=it.port, proxy=None) as client:
            for text in ('a', 'b' * 100_000):
                await client.send(text)
                expect(await client.recv(), text)

    asyncio.run(talk())


def browser(kind):
    def visit(it, name):
        async def drive():
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                browser = kind(folder)
                try:
                    expect((await browser.open(it.url(name))).strip() + '\n', it.page(name))
                finally:
                    await browser.close()

        asyncio.run(drive())

    return visit


def bulk(version):
    """So many bytes each way, as curl and the service see them."""
    versions = [f'--tlsv1.{version}', '--tls-max', f'1.{version}']
    return lambda it, name: move(it, lambda *options, path: curl(it, name, *versions, '--http1.1', *options, path=path))


def bulk_by_a_port(it):
    it.start_agent('page', '--stream', f'page=127.0.0.1:{it.web}')
    base = f'http://127.0.0.1:{it.ports["page"]}'
    curl = ['curl', '-q', '-sS', '--max-time', '800', '--noproxy', '*']
    return move(it, lambda *options, path: run(*curl, *options, base + path))


def move(it, curl):
    """BYTES to the service and from it. Their hashes are the same."""
    block = bytes(range(251)) * 4200
    file = it.folder / 'bulk'
    if not file.exists():
        with file.open('wb') as to:
            left = BYTES
            while left:
                left -= to.write(block[:min(left, 1 << 20)])
    total = digest(file)
    expect(curl('-T', file, path='/sum').strip(), total)
    got = it.folder / 'got'
    curl('-o', got, path=f'/bytes?{BYTES}')
    # The service's block is the same one.
    expect(digest(got), total)


def digest(file):
    total = hashlib.sha256()
    with file.open('rb') as from_:
        while part := from_.read(1 << 20):
            total.update(part)
    return total.hexdigest()


def ssh(it):
    folder = it.folder / 'ssh'
    folder.mkdir(mode=0o700)
    for key in ('host', 'user'):
        run('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', folder / key)
    (folder / 'authorized').write_text((folder / 'user.pub').read_text())
    (folder / 'authorized').chmod(0o600)
    port = free_port()
    config = folder / 'sshd_config'
    config.write_text(f'Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n'
                      f'PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n')
    os.makedirs('/run/sshd', exist_ok=True)
    sshd = it.start('sshd', [shutil.which('sshd') or '/usr/sbin/sshd', '-D', '-e', '-f', str(config)])
    await_line(it.folder / 'sshd.log', 'Server listening', sshd)
    it.start_agent('ssh', '--stream', f'ssh=127.0.0.1:{port}')
    got = run('ssh', '-i', folder / 'user', '-p', it.ports['ssh'], '-o', 'StrictHostKeyChecking=no', '-o',
              f'UserKnownHostsFile={folder}/known', '-o', 'BatchMode=yes', '127.0.0.1', 'head -c 20000000 /dev/zero | sha256sum')
    expect(got.split()[0], hashlib.sha256(bytes(20_000_000)).hexdigest())


def of_postgres(program):
    # Debian keeps them where nobody's PATH leads.
    found = [str(path) for path in Path('/usr/lib/postgresql').glob(f'*/bin/{program}')]
    return shutil.which(program) or sorted(found)[-1]


def postgres(it):
    folder = Path(tempfile.mkdtemp(prefix='blind-db-'))
    try:
        shutil.chown(folder, 'postgres')
        port = free_port()
        as_postgres = {'user': 'postgres', 'cwd': folder}
        run(of_postgres('initdb'), '-D', folder / 'db', '-A', 'trust', '-N', **as_postgres)
        database = subprocess.Popen([of_postgres('postgres'), '-D', str(folder / 'db'), '-p', str(port), '-k', str(folder), '-h',
                                     '127.0.0.1'], stderr=(it.folder / 'postgres.log').open('wb'), **as_postgres)
        it.programs.append(database)
        await_line(it.folder / 'postgres.log', 'ready to accept connections', database)
        it.start_agent('db', '--stream', f'db=127.0.0.1:{port}')
        query = "create table t as select g as n, repeat('x', 1000) as text from generate_series(1, 20000) g; " \
                'select count(*), sum(n), sum(length(text)) from t'
        got = run('psql', '-X', '-q', '-A', '-t', '-h', '127.0.0.1', '-p', it.ports['db'], '-U', 'postgres', '-c', query)
        expect(got.strip(), '20000|200010000|20000000')
        got = run('psql', '-X', '-q', '-A', '-t', '-h', '127.0.0.1', '-p', it.ports['db'], '-U', 'postgres', '-c', 'select * from t')
        expect(str(len(got.splitlines())), '20000')
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def game(it):
    """Small packets to and fro: none is kept back until the next one."""
    it.start_agent('game', '--stream', f'game=127.0.0.1:{it.game}')
    with socket.create_connection(('127.0.0.1', it.ports['game'])) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(30)
        times = []
        for number in range(2_000):
            packet = number.to_bytes(32, 'big')
            begun = time.monotonic()
            client.sendall(packet)
            expect(client.recv(32, socket.MSG_WAITALL), packet)
            times.append(time.monotonic() - begun)
    times.sort()
    return f'p50 {times[1000] * 1e3:.2f} ms, p99 {times[1980] * 1e3:.2f} ms'


CLIENTS = {'curl --http2': curl_http2, 'openssl s_client': s_client, 'python ssl': python_ssl, 'java': java, 'go': go,
           'websocket': websocket, 'chromium': browser(Chromium), 'firefox': browser(Firefox),
           'bulk, TLS 1.2': bulk(2), 'bulk, TLS 1.3': bulk(3)}


def main():
    findings = []

    def attempt(title, what, *arguments):
        begun = time.monotonic()
        try:
            note = what(*arguments) or 'well'
        except Exception as error:  # Whatever a client has to say is a finding.
            note = f'FAILED: {error}'
            findings.append(f'{title}: {error}')
        print(f'{title}: {note} ({time.monotonic() - begun:.1f} s)', flush=True)

    with tempfile.TemporaryDirectory() as folder:
        it = Setting(Path(folder))
        try:
            for title, client in CLIENTS.items():
                for name, who in (('web', 'the agent terminates'), ('nas', 'nginx terminates')):
                    attempt(f'{title}, {who}', client, it, name)
            for title in ('curl --http2', 'java', 'go', 'chromium', 'firefox'):
                attempt(f'{title}, the agent terminates and passes HTTP/2 on', CLIENTS[title], it, 'h2')
            attempt('gRPC, the agent terminates', rpc, it, 'rpc')
            attempt('gRPC, nginx terminates', rpc, it, 'nas')
            for port in (ssh, postgres, game, bulk_by_a_port):
                attempt(f'{port.__name__} by a port', port, it)
        finally:
            it.close()
    for line in findings:
        print(f'blind: {line}', file=sys.stderr)
    print(f'blind: {"all well" if not findings else f"{len(findings)} findings"}')
    return bool(findings)


if __name__ == '__main__':
    sys.exit(main())
