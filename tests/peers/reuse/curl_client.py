"""curl, all requests in one run of it:  curl_client.py digest|basic|http1.1 URL ID-A ID-B CA-FILE COUNT"""

import subprocess
import sys

from plan import Check, Request

MODES = {'digest': ['digest'], 'basic': ['basic'], 'http1.1': ['basic', 'http1.1', 'keepalive-time = 60']}
MARK = '\x1e'


def quoted(text):
    return '"' + text.replace('\\', '\\\\').replace('"', '\\"') + '"'


def main():
    mode, url, id_a, id_b, ca, count = sys.argv[1:]
    ids = {'a': id_a, 'b': id_b}
    requests = [Request(number) for number in range(int(count))]
    config = []
    for request in requests:
        config += ['next'] if config else []
        config += [*MODES[mode], 'silent', 'show-error', 'max-time = 60', f'cacert = {quoted(ca)}', 'noproxy = "*"',
                   f'user = {quoted(ids[request.to] + ":any")}', f'url = {quoted(url + request.target)}',
                   f'write-out = "{MARK}%{{http_code}} %{{num_connects}}{MARK}"']
        if request.method == 'POST':
            config += [f'data = {quoted(request.body.decode())}']
    curl = subprocess.run(['curl', '-q', '--config', '-'], input='\n'.join(config).encode(), capture_output=True)
    sys.stderr.write(curl.stderr.decode())
    parts = curl.stdout.decode('latin-1').split(MARK)
    check = Check()
    made = 0
    for request, text, status in zip(requests, parts[0::2], parts[1::2], strict=False):
        code, connects = status.split(' ')
        made += int(connects)
        check.add(request, int(code), text)
    if curl.returncode or check.right != len(requests):
        check.wrong.append(f'curl exits {curl.returncode}, {len(parts) // 2} of {len(requests)} answered')
    print(f'{made} connections made')
    check.exit()


if __name__ == '__main__':
    main()
