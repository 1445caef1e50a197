#!/usr/bin/env python3
"""The boundaries of requests and responses according to h11. stdin has, for each conversation, the client's bytes and the
server's bytes, each after its length (4 bytes, little-endian). stdout gets a line for each conversation, in the same order:

    REQUESTS/END RESPONSES/END

REQUESTS and RESPONSES are lists with commas, of START+HEAD+BODY: where the head begins, its length, and the length of the
body with chunks and trailers; '?' for an incomplete body. END is why the list ends:

    more    no more bytes, or not enough
    no      refused
    switch  another protocol follows
    stop    h11 does not continue: the connection is to be closed, or the other direction is not complete
"""

import struct
import sys

import h11
from h11._connection import _body_framing

LIMIT = 16384
ERRORS = (h11.RemoteProtocolError, h11.LocalProtocolError)


class Side:
    """One direction, and what was found in it."""

    def __init__(self, role, octets):
        self.connection = h11.Connection(role, max_incomplete_event_size=LIMIT)
        # Empty data would be the end of the direction.
        if octets:
            self.connection.receive_data(octets)
        self.length = len(octets)
        self.found = []
        self.end = "stop"

    def at(self):
        return self.length - len(self.connection.trailing_data[0])

    def head(self):
        """The next request, or final response; None, with the reason in `end`."""
        while True:
            start = self.at()
            try:
                event = self.connection.next_event()
            except ERRORS:
                self.end = "no"
                return None
            if event is h11.NEED_DATA or event is h11.PAUSED:
                self.end = "more"
                return None
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    self.end = "switch"
                    return None
                continue
            if not isinstance(event, (h11.Request, h11.Response)):
                self.end = "more"
                return None
            self.found.append([start, self.at() - start, "?"])
            return event

    def body(self):
        """Whether the body is complete."""
        start = self.at()
        while True:
            try:
                event = self.connection.next_event()
            except ERRORS:
                self.end = "no"
                return False
            if isinstance(event, h11.EndOfMessage):
                self.found[-1][2] = self.at() - start
                return True
            if not isinstance(event, h11.Data):
                self.end = "more"
                return False

    def next_cycle(self):
        try:
            self.connection.start_next_cycle()
        except ERRORS:
            self.end = "stop"
            return False
        return True

    def shown(self):
        return ",".join("+".join(map(str, each)) for each in self.found) + "/" + self.end


def follow(sent, answered):
    client, server = Side(h11.SERVER, sent), Side(h11.CLIENT, answered)
    while (request := client.head()) is not None:
        is_complete = client.body()
        upgrade = [(name, value) for name, value in request.headers if name == b"upgrade"]
        fields = [("Host", "a")] + (upgrade + [("Connection", "upgrade")] if upgrade else [])
        try:
            server.connection.send(h11.Request(method=request.method, target="/", headers=fields))
            if is_complete:
                server.connection.send(h11.EndOfMessage())
        except ERRORS:
            break
        response = server.head()
        if response is None:
            break
        if _body_framing(request.method, response)[0] == "http/1.0":
            server.end = "stop"
            break
        if not server.body() or not is_complete:
            break
        try:
            client.connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            client.connection.send(h11.EndOfMessage())
        except ERRORS:
            break
        if not client.next_cycle() or not server.next_cycle():
            break
    return client.shown() + " " + server.shown()


def main():
    source = sys.stdin.buffer

    def read():
        size = source.read(4)
        return source.read(struct.unpack("<I", size)[0]) if size else None

    while (sent := read()) is not None:
        print(follow(sent, read()))


main()
