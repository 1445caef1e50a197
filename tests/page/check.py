#!/usr/bin/env python3
"""Clicks through the operator's page in Chromium and takes screenshots. By hand: needs Chromium, takes half a minute.

    tests/page/check.py [FOLDER FOR SCREENSHOTS]        e.g. after cargo build

It starts a relay with 1,001 IDs and talks to Chromium over a pipe, so that it needs no packages.
"""
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get('RENDEZVOUS', os.path.join(ROOT, 'target/debug/rendezvous'))
PATIENCE = 60


class Browser:
    """Chromium, by the DevTools protocol: one JSON object per message, ended by a zero byte."""

    def __init__(self, folder):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def pass_pipe():
            # Both are moved away first, in case one of them is 3 or 4.
            read, write = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(read, 3)
            os.dup2(write, 4)

        program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
        self.process = subprocess.Popen(
            [program, '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-dev-shm-usage',
             f'--user-data-dir={folder}/profile', '--remote-debugging-pipe'],
            preexec_fn=pass_pipe, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.read, self.write = ours_in, ours_out
        self.buffer, self.number, self.events, self.session = b'', 0, [], None
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(domain + '.enable')

    def message(self):
        while b'\0' not in self.buffer:
            bytes_read = os.read(self.read, 1 << 20)
            assert bytes_read, 'Chromium has ended'
            self.buffer += bytes_read
        text, self.buffer = self.buffer.split(b'\0', 1)
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        request = {'id': self.number, 'method': method, 'params': params}
        if self.session:
            request['sessionId'] = self.session
        os.write(self.write, json.dumps(request).encode() + b'\0')
        while True:
            message = self.message()
            if message.get('id') == self.number:
                assert 'error' not in message, (method, message['error'])
                return message['result']
            self.events.append(message)

    def js(self, expression):
        result = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def until(self, expression):
        end = time.monotonic() + PATIENCE
        while not self.js(expression):
            assert time.monotonic() < end, 'never: ' + expression
            time.sleep(0.05)

    def key(self, key, code=None, number=0, text=None):
        params = {'key': key, 'code': code or key, 'windowsVirtualKeyCode': number}
        self.call('Input.dispatchKeyEvent', type='keyDown', **params, **({'text': text} if text else {}))
        self.call('Input.dispatchKeyEvent', type='keyUp', **params)

    def view(self, width, height, scheme, mobile=False):
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def shot(self, path):
        data = self.call('Page.captureScreenshot', format='png')['data']
        with open(path, 'wb') as file:
            file.write(base64.b64decode(data))

    def complaints(self):
        bad = []
        for event in self.events:
            if event.get('method') == 'Runtime.exceptionThrown':
                bad.append(event['params']['exceptionDetails'])
            elif event.get('method') == 'Log.entryAdded' and event['params']['entry']['level'] == 'error':
                bad.append(event['params']['entry'])
        return bad


def relay(folder):
    state = os.path.join(folder, 'state')
    os.mkdir(state, 0o700)
    subprocess.run([BINARY, 'id', 'add', 'home', '--label', 'home', '--relay', 'https://127.0.0.1:1', '--state', state,
                    '--out', os.path.join(folder, 'home.ticket')], check=True, stdout=subprocess.DEVNULL)
    ids = os.path.join(state, 'ids')
    with open(ids) as file:
        line = next(line for line in file if line.startswith('home '))
    identity = re.search(r'[0-9a-f-]{36}', line).group()
    with open(ids, 'a') as file:
        for number in range(1000):
            other = f'00000000-0000-4000-8000-{number:012}'
            file.write(line.replace('home ', f'server-{number:04} ', 1).replace(identity, other).replace('label=home', ''))
    process = subprocess.Popen([BINARY, 'serve', '--listen', '127.0.0.1:0', '--listen-plain', '127.0.0.1:0', '--domain', 'relay.test',
                                '--state', state,
                                '--metrics', '127.0.0.1:0'], stderr=subprocess.PIPE, text=True)
    url = tls = plain = None
    for line in process.stderr:
        if found := re.search(r'kind=metrics on=(\S+)', line):
            url = f'http://{found.group(1)}/'
        if found := re.search(r'listening on=(\S+) tls=yes', line):
            tls = found.group(1)
        if found := re.search(r'listening on=(\S+):(\d+) tls=no', line):
            plain = (found.group(1), int(found.group(2)))
        if 'event=ready' in line:
            break
    with open(os.path.join(folder, 'home.ticket')) as file:
        ticket = file.read().replace('127.0.0.1:1\n', tls + '\n')
    with open(os.path.join(folder, 'home.ticket'), 'w') as file:
        file.write(ticket)
    # A service that accepts clients and does not answer.
    service = socket.create_server(('127.0.0.1', 0))
    agent = subprocess.Popen([BINARY, 'agent', '--ticket', os.path.join(folder, 'home.ticket'), '--to', '127.0.0.1:%d' % service.getsockname()[1]],
                             stderr=subprocess.DEVNULL)
    return process, agent, url, plain, service


def check(browser, url, plain, shots):
    shown = lambda name: browser.shot(os.path.join(shots, name + '.png'))
    rows = "document.querySelectorAll('#servers tbody tr').length"
    browser.view(1280, 900, 'light')
    browser.call('Page.navigate', url=url)
    browser.until(f"document.readyState === 'complete' && {rows} > 0")
    browser.until("document.getElementById('state').textContent === 'running'")
    browser.until("[...document.querySelectorAll('#servers tbody tr')].some(row => row.textContent.startsWith('homeonline'))")
    assert browser.js(rows) == 100, 'the first hundred'
    shown('light')
    browser.view(1280, 900, 'dark')
    dark = browser.js('getComputedStyle(document.body).backgroundColor')
    assert dark == 'rgb(13, 17, 23)', dark
    shown('dark')
    browser.view(390, 844, 'light', mobile=True)
    assert browser.js('document.documentElement.scrollWidth') <= 390, 'nothing is wider than the screen'
    shown('phone')
    browser.view(390, 844, 'dark', mobile=True)
    shown('phone-dark')
    browser.view(1280, 900, 'light')
    # The keyboard alone: the filter, the order, then the first server.
    browser.js("document.getElementById('filter').focus()")
    for letter in 'home':
        browser.key(letter, text=letter)
    browser.until(f'{rows} === 1')
    browser.key('Tab', number=9)
    browser.key('Tab', number=9)
    assert browser.js('document.activeElement.textContent') == 'home'
    browser.key('Enter', number=13, text='\r')
    browser.until("!document.getElementById('detail').hidden")
    browser.until("document.getElementById('detail-note').textContent.includes('4 waiting')")
    shown('detail')
    # A client is ended by a button: the request has the page's Origin, and the dialog is confirmed.
    client = socket.create_connection(plain)
    client.sendall(b'GET / HTTP/1.1\r\nHost: home.relay.test\r\nContent-Length: 9\r\n\r\n')
    browser.until("document.querySelector('#clients button') !== null")
    browser.js("window.confirm = () => true")
    browser.js("document.querySelector('#clients button').click()")
    client.settimeout(PATIENCE)
    try:
        while client.recv(1000):
            pass
    except ConnectionResetError:
        pass
    browser.until("document.getElementById('clients').textContent.includes('no clients')")
    browser.key('Escape', number=27)
    browser.until("document.getElementById('detail').hidden && document.activeElement.textContent === 'home'")
    browser.js("{const f = document.getElementById('filter'); f.value = ''; f.dispatchEvent(new Event('input'))}")
    browser.js("document.querySelector('#more button').click()")
    browser.until(f'{rows} === 1001')
    took = browser.js("new Promise(done => {const t = performance.now(); const f = document.getElementById('filter');"
                      "f.value = 'server'; f.dispatchEvent(new Event('input'));"
                      "requestAnimationFrame(() => done(performance.now() - t))})")
    print(f'1,000 rows are filtered and drawn in {took:.0f} ms')
    shown('thousand')
    # A name that is markup is shown as text.
    name = '<img src=x onerror="document.title=1">'
    browser.js("window.realFetch = window.fetch; window.fetch = async (...it) => {const r = await realFetch(...it);"
               "const body = await r.json(); if (body.ids) { body.ids[0].name = %s; body.refused = [{why: %s, status: 1, count: 1}]; }"
               "return new Response(JSON.stringify(body))}" % (json.dumps(name), json.dumps(name)))
    browser.js("{const f = document.getElementById('filter'); f.value = '<img'; f.dispatchEvent(new Event('input'))}")
    browser.until(f'{rows} === 1')
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert browser.js('document.title') == 'rendezvous'
    # The policy lets nothing else in.
    blocked = browser.js("new Promise(done => {document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
                         "const s = document.createElement('script'); s.textContent = 'document.title = 2'; document.head.append(s)})")
    assert blocked == 'script-src-elem', blocked
    bad = [it for it in browser.complaints() if 'Content Security Policy' not in it.get('text', '')
           and 'favicon' not in it.get('url', '')]
    assert not bad, bad


def main():
    shots = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix='rendezvous-page-')
    os.makedirs(shots, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process, agent, url, plain, _service = relay(folder)
        browser = None
        try:
            browser = Browser(folder)
            check(browser, url, plain, shots)
        finally:
            for each in (agent, process, browser and browser.process):
                if each:
                    each.terminate()
                    each.wait()
    print('ok, screenshots in', shots)


main()
