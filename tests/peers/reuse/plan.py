"""The requests that every client of this folder sends, in this order, and what the hidden servers answer.

All go to one relay. Request number N names the hidden server 'a' or 'b': mostly in turn, sometimes the same one twice.
Target and body name it as well, so that a hidden server can tell a request that was meant for the other one.
"""

import hashlib
import sys


class Request:
    def __init__(self, number):
        self.number = number
        self.to = 'ab'[(number + number // 4) % 2]
        self.method = ('GET', 'POST')[number // 2 % 2]
        self.target = f'/{self.to}/{number}'
        self.body = b''
        if self.method == 'POST':
            self.body = f'for-{self.to}-{number};'.encode() * (1 + number % 7 * 500)

    def answer(self):
        return answer(self.to, self.method, self.target, self.body)


def answer(name, method, target, body):
    """The answer of the hidden server with that name."""
    return f'{name} {method} {target} {len(body)} {hashlib.sha256(body).hexdigest()}\n'


class Check:
    """Compares the answers with what was expected."""

    def __init__(self):
        self.right = 0
        self.wrong = []

    def add(self, request, status, text):
        if (status, text) == (200, request.answer()):
            self.right += 1
        else:
            self.wrong.append(f'{request.method} {request.target}: {status} {text[:80]!r}')

    def exit(self):
        """Ends the program: exit code 0 if every answer was correct."""
        print(f'{self.right} answered by their own hidden server')
        for line in self.wrong[:5]:
            print(f'wrong: {line}', file=sys.stderr)
        if self.wrong:
            print(f'wrong: {len(self.wrong)} in all', file=sys.stderr)
        sys.exit(bool(self.wrong))
