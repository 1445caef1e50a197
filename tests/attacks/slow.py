"""Four kinds of slow clients (slowhttptest), with 2000 connections each, beside 50 honest clients per second:
`slow.py RELAY`. All honest ones must be answered, with a p99 under three times that of the quiet time before and after."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from honest import Honest

CONNECTIONS = 2000
# Connections opened per second: the attack has them all after ten seconds.
RATE = 200
SECONDS = 25
QUIET = 15
MODES = {
    'slow headers (slowloris)': ['-H', '-i', '5'],
    'slow body': ['-B', '-i', '5', '-s', '60000'],
    'range': ['-R', '-a', '10', '-b', '3000'],
    'slow read': ['-X', '-w', '10', '-y', '20', '-n', '5', '-z', '32', '-k', '3'],
}


def attack(options, url, folder):
    """Starts slowhttptest, and keeps its log."""
    command = ['slowhttptest', '-c', str(CONNECTIONS), '-r', str(RATE), '-l', str(SECONDS), '-p', '3', '-u', url]
    with open(folder / 'slowhttptest.log', 'w', encoding='utf-8') as log:
        return subprocess.Popen(command + options, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def extent(folder):
    """The tool's own numbers: the maximum of concurrent connections, and all connections."""
    said = re.sub(r'\x1b\[[0-9;]*[A-Za-z]', '', (folder / 'slowhttptest.log').read_text(errors='replace'))
    most = {what: max(map(int, re.findall(rf'{what}:\s+(\d+)', said)), default=0) for what in ('connected', 'closed')}
    return most['connected'], most['connected'] + most['closed']


def main():
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The attackers come from 127.0.0.1, as the agent does; the honest clients have addresses of their own. The
        # limit for one address is off, because it would make the test too easy.
        with Honest(sys.argv[1], folder, ['--max-connections-per-address', '0']) as honest:
            for mode, options in MODES.items():
                before = honest.run(QUIET)
                attacker = attack(options, f'https://127.0.0.1:{honest.port}/', folder)
                during = honest.run(SECONDS)
                attacker.wait()
                after = honest.run(QUIET)
                quiet = max(before.p99, after.p99)
                at_once, in_all = extent(folder)
                print(f'{mode}: {at_once} connected at most, {in_all} in all; honest: {during}; '
                      f'quiet before: {before}; after: {after}', flush=True)
                unanswered = before.failed + during.failed + after.failed
                found += [f'{mode}: unanswered: {why}' for why in unanswered[:5]]
                if during.p99 >= 3 * quiet:
                    found.append(f'{mode}: p99 {during.p99:.1f} ms, in quiet {quiet:.1f} ms')
                if in_all < CONNECTIONS // 2:
                    found.append(f'{mode}: that was no attack: {in_all} connections')
    for line in found:
        print(f'slowhttptest: {line}', file=sys.stderr)
    print(f'slowhttptest: {"passed" if not found else f"{len(found)} findings"}')
    return bool(found)


if __name__ == '__main__':
    sys.exit(main())
