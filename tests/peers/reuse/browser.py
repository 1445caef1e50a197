"""A headless browser:  browser.py chromium|firefox URL ID-A ID-B CA-FILE COUNT

All hidden servers of the relay are one origin, and a browser keeps one set of credentials for it. So the page's script names
the hidden server in each request, by an `Authorization` field. Between two rounds of these the browser navigates to
`https://ID:any@RELAY/` of the other one.

Chromium is driven by chromedriver, Firefox by its own WebDriver BiDi.
"""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from plan import Check, Request

# As many fetches as one page makes before the next navigation.
ROUND = 50
# Sequential and `async`: the browser reuses the connection of the previous request.
FETCH = """(async plan => {
  const answers = [];
  for (const [method, target, body, authorization] of plan) {
    try {
      const options = { method, headers: { Authorization: authorization }, cache: 'no-store' };
      if (body) options.body = body;
      const answer = await fetch(location.origin + target, options);
      answers.push([answer.status, await answer.text()]);
    } catch (error) { answers.push([0, String(error)]); }
  }
  return JSON.stringify(answers);
})"""


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return listener.getsockname()[1]


class Chromium:
    def __init__(self, _):
        port = free_port()
        self.driver = subprocess.Popen(['chromedriver', f'--port={port}'], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        self.base = f'http://127.0.0.1:{port}'
        until = time.monotonic() + 60
        while True:
            try:
                if self.call('GET', '/status')['ready']:
                    break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        arguments = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-proxy-server',
                     '--disable-background-networking']
        options = {'args': arguments, 'binary': shutil.which('chromium')}
        wanted = {'acceptInsecureCerts': True, 'goog:chromeOptions': options, 'timeouts': {'script': 300_000}}
        session = self.call('POST', '/session', {'capabilities': {'alwaysMatch': wanted}})
        self.session = f"/session/{session['sessionId']}"

    def call(self, method, path, data=None):
        request = urllib.request.Request(self.base + path, method=method, data=data and json.dumps(data).encode(),
                                         headers={'Content-Type': 'application/json'})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=400) as answer:
            return json.load(answer)['value']

    async def open(self, url):
        self.call('POST', self.session + '/url', {'url': url})
        script = 'return document.body.innerText'
        return self.call('POST', self.session + '/execute/sync', {'script': script, 'args': []})

    async def run(self, script):
        return self.call('POST', self.session + '/execute/sync', {'script': f'return {script}', 'args': []})

    async def close(self):
        self.call('DELETE', self.session)
        self.driver.terminate()
        self.driver.wait()


class Firefox:
    def __init__(self, folder):
        port = free_port()
        # No traffic of the browser's own, and no prompt before credentials in a URL are used.
        preferences = {
            'network.http.phishy-userpass-length': 255, 'network.auth.confirmAuth.enabled': False,
            'datareporting.policy.dataSubmissionEnabled': False, 'app.normandy.enabled': False,
            'services.settings.server': 'data:,#remote-settings-dummy/v1', 'network.captive-portal-service.enabled': False,
            'network.connectivity-service.enabled': False, 'network.proxy.type': 0,
            'browser.shell.checkDefaultBrowser': False,
        }
        with open(f'{folder}/user.js', 'w', encoding='utf-8') as file:
            file.writelines(f'user_pref({json.dumps(name)}, {json.dumps(value)});\n' for name, value in preferences.items())
        command = ['firefox-esr', '--headless', '--no-remote', '--profile', folder, f'--remote-debugging-port={port}']
        self.log = open(f'{folder}/log', 'w+', encoding='utf-8')
        self.driver = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.number = 0
        self.socket = None

    async def begin(self):
        from websockets.asyncio.client import connect

        until = time.monotonic() + 120
        while True:
            with open(self.log.name, encoding='utf-8') as log:
                if match := re.search(r'WebDriver BiDi listening on (ws://\S+)', log.read()):
                    break
            if time.monotonic() > until:
                raise TimeoutError('Firefox does not listen')
            await asyncio.sleep(0.1)
        self.socket = await connect(match[1] + '/session', max_size=None, proxy=None, open_timeout=60)
        await self.call('session.new', {'capabilities': {'alwaysMatch': {'acceptInsecureCerts': True}}})
        tree = await self.call('browsingContext.getTree', {})
        self.context = tree['contexts'][0]['context']

    async def call(self, method, parameters):
        self.number += 1
        await self.socket.send(json.dumps({'id': self.number, 'method': method, 'params': parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), 400))
            if message.get('id') == self.number:
                if message['type'] != 'success':
                    raise OSError(f'{method}: {message}')
                return message['result']

    async def open(self, url):
        if self.socket is None:
            await self.begin()
        await self.call('browsingContext.navigate', {'context': self.context, 'url': url, 'wait': 'complete'})
        return await self.run('document.body.innerText')

    async def run(self, script):
        got = await self.call('script.evaluate', {'expression': script, 'target': {'context': self.context},
                                                  'awaitPromise': True})
        if got['type'] != 'success':
            raise OSError(f'{got}')
        return got['result']['value']

    async def close(self):
        await self.call('browser.close', {})
        self.driver.wait(60)


async def drive(name, url, ids, count, folder):
    from base64 import b64encode

    browser = {'chromium': Chromium, 'firefox': Firefox}[name](folder)
    check = Check()
    plan = [Request(number) for number in range(count)]
    while plan:
        # A navigation is a GET: the next one of the plan.
        first = next((request for request in plan if request.method == 'GET'), plan[0])
        batch = [request for request in plan[:ROUND] if request is not first]
        plan = [request for request in plan if request is not first and request not in batch]
        if first.method == 'GET':
            text = await browser.open(url.replace('://', f'://{ids[first.to]}:any@') + first.target)
            check.add(first, 200, text.strip() + '\n')
        else:
            batch.insert(0, first)
        authorization = {to: 'Basic ' + b64encode(f'{uuid}:any'.encode()).decode() for to, uuid in ids.items()}
        sent = [[request.method, request.target, request.body.decode(), authorization[request.to]] for request in batch]
        answers = json.loads(await browser.run(f'{FETCH}({json.dumps(sent)})'))
        for request, (status, text) in zip(batch, answers, strict=True):
            check.add(request, status, text)
    await browser.close()
    return check


def main():
    name, url, id_a, id_b, _, count = sys.argv[1:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        check = asyncio.run(drive(name, url, {'a': id_a, 'b': id_b}, int(count), folder))
    check.exit()


if __name__ == '__main__':
    main()
