#!/usr/bin/env python3
"""h11's verdict on request heads. stdin has them, each after its length (4 bytes, little-endian); stdout gets a
line for each, in the same order:

    more                          no end of the head yet
    no WHY                        refused
    ok METHOD TARGET VERSION LENGTH FRAMING HOST AUTHORIZATION FIELDS

LENGTH is the head's length in bytes; FRAMING is none, chunked, or a length in bytes. METHOD, TARGET, HOST and
AUTHORIZATION are in hex, '-' if absent; repeated fields are joined by commas. FIELDS is the number of fields.
"""

import struct
import sys

import h11


def hexed(values):
    return ",".join(value.hex() or "empty" for value in values) or "-"


def judge(octets):
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
    server.receive_data(octets)
    try:
        event = server.next_event()
    except h11.RemoteProtocolError as error:
        return "no " + str(error)[:60].replace("\n", " ")
    if event is h11.NEED_DATA:
        return "more"
    fields = [(bytes(name), bytes(value)) for name, value in event.headers]

    def named(name):
        return [value for found, value in fields if found == name]

    if named(b"transfer-encoding"):
        framing = "chunked"
    elif named(b"content-length"):
        framing = named(b"content-length")[0].decode()
    else:
        framing = "none"
    length = len(octets) - len(server.trailing_data[0])
    return " ".join([
        "ok",
        bytes(event.method).hex(),
        bytes(event.target).hex(),
        bytes(event.http_version).decode(),
        str(length),
        framing,
        hexed(named(b"host")),
        hexed(named(b"authorization")),
        str(len(fields)),
    ])


def main():
    source = sys.stdin.buffer
    while size := source.read(4):
        octets = source.read(struct.unpack("<I", size)[0])
        print(judge(octets))


main()
