#!/usr/bin/env python3
"""An independent implementation of DTCP over XMPP, written from the text of XEP-0046, on slixmpp. It handles one session.
Standard input and output are the stream; events are printed on standard error.

    dtcp_peer.py open|accept|deaf --jid JID --server HOST:PORT --password WORD|--secret WORD [--to JID]
                 [--listen 127.0.0.1:0] [--host HOST:PORT]… [--tls off|prefer|require --cert FILE]
                 [--give-up id|no-id|empty-id] [--key KEY] [--late] [--nonsense]

`deaf` does not support DTCP. With --secret it is a component (XEP-0114), because a server accepts errors without an id from a
component and not from an account. --late answers the request only after a connection has sent the key, so that a serving
requestor gets its key too early. --nonsense sends wrong commands and wrong keys first.
"""

import argparse
import asyncio
import os
import secrets
import socket
import ssl
import sys
import threading
from xml.etree import ElementTree

import slixmpp
from slixmpp.componentxmpp import ComponentXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream import tostring
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

NS = "http://jabber.org/protocol/dtcp"
PATIENCE = 30


def say(text):
    print(text, file=sys.stderr, flush=True)


class Closed(Exception):
    pass


class Wire:
    """One connection. Lines are read byte by byte, so that the bytes after them stay in the socket."""

    def __init__(self, sock, tls):
        self.sock, self.tls = sock, tls
        self.is_secure = False
        sock.settimeout(PATIENCE)

    def line(self):
        text = bytearray()
        while not text.endswith(b"\n"):
            octet = self.sock.recv(1)
            if not octet:
                raise Closed
            text += octet
        return text[:-1].decode()

    def send(self, line):
        self.sock.sendall(line.encode() + b"\n")

    def secure(self, serving):
        if serving:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.tls)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_side=serving, suppress_ragged_eofs=False)
        self.is_secure = True

    def stream(self):
        """Copies standard input to it, and it to standard output, until both have ended."""
        self.sock.settimeout(None)
        # An SSL object cannot be used by two threads, and has no half-close: with TLS the other side ends first.
        writer = threading.Thread(target=self.write)
        writer.start()
        if self.is_secure:
            writer.join()
        while octets := self.sock.recv(65536):
            os.write(1, octets)
        os.close(1)
        writer.join()
        if self.is_secure:
            self.sock = self.sock.unwrap()
        self.sock.close()

    def write(self):
        while octets := os.read(0, 65536):
            self.sock.sendall(octets)
        if not self.is_secure:
            self.sock.shutdown(socket.SHUT_WR)


class Peer:
    def __init__(self, args):
        self.args = args
        self.key = args.key or secrets.token_hex(4)
        self.theirs = None
        self.their_key = threading.Event()
        self.shown = threading.Event()
        self.is_requestor = args.role == "open"
        self.lock = threading.Lock()
        self.winner = None
        self.gave_up = {"us": False, "them": False}
        self.outcome = asyncio.get_running_loop().create_future()
        self.loop = asyncio.get_running_loop()
        self.hosts = []
        if args.listen:
            host, port = args.listen.rsplit(":", 1)
            self.listener = socket.create_server((host, int(port)))
            self.hosts = args.host or ["%s:%d" % self.listener.getsockname()]
            threading.Thread(target=self.accept, daemon=True).start()
        else:
            self.gave_up["them"] = True

    # ---- XMPP ----

    async def connect(self):
        args = self.args
        server = args.server.rsplit(":", 1)
        if args.secret:
            self.xmpp = ComponentXMPP(args.jid.split("/")[0].split("@")[-1], args.secret, server[0], int(server[1]))
        else:
            self.xmpp = slixmpp.ClientXMPP(args.jid, args.password, plugin_config={
                "feature_mechanisms": {"unencrypted_plain": True, "unencrypted_scram": True}})
            self.xmpp.enable_plaintext = True
            self.xmpp.enable_starttls = self.xmpp.enable_direct_tls = False
        if args.role != "deaf":
            path = "{%s}iq/{%s}query" % (self.xmpp.default_ns, NS)
            self.xmpp.register_handler(Callback("DTCP", MatchXPath(path), self.heard))
        started = self.loop.create_future()
        self.xmpp.add_event_handler("session_start", lambda _: started.set_result(None))
        self.xmpp.connect(*([] if args.secret else [server[0], int(server[1])]))
        await asyncio.wait_for(started, PATIENCE)
        say("ready jid=%s" % (self.args.jid if args.secret else self.xmpp.boundjid))

    def query(self, key, hosts=()):
        query = ElementTree.Element("{%s}query" % NS)
        ElementTree.SubElement(query, "{%s}key" % NS).text = key
        for host in hosts:
            ElementTree.SubElement(query, "{%s}host" % NS).text = host
        return query

    def iq(self, kind, to, id=None):
        iq = self.xmpp.Iq()
        iq["type"], iq["to"], iq["id"] = kind, to, id or self.xmpp.new_id()
        if self.args.secret:
            iq["from"] = self.args.jid
        return iq

    def heard(self, iq):
        query = iq.xml.find("{%s}query" % NS)
        if iq["type"] == "set":
            if self.args.role == "open" or self.theirs:
                return self.refuse(iq)
            answer = self.iq("result", iq["from"], iq["id"])
            answer.xml.append(self.query(self.key, self.hosts))
            self.to = iq["from"]
            self.learn(query)
            if self.args.late:
                threading.Thread(target=self.answer_late, args=(answer,), daemon=True).start()
            else:
                answer.send()
        elif iq["type"] == "error":
            if iq["from"] == self.to and query.findtext("{%s}key" % NS) == self.key:
                say("they-gave-up id=%s" % iq.xml.get("id"))
                self.give("them")

    def answer_late(self, answer):
        self.shown.wait(PATIENCE)
        self.loop.call_soon_threadsafe(answer.send)

    def refuse(self, iq):
        answer = iq.reply()
        answer["type"] = "error"
        answer["error"]["condition"] = "conflict"
        answer.send()

    async def ask(self):
        self.to = self.args.to
        iq = self.iq("set", self.args.to)
        iq.xml.append(self.query(self.key, self.hosts))
        try:
            result = await iq.send(timeout=PATIENCE)
        except IqError as error:
            say("refused code=%s condition=%s" % (error.iq["error"]["code"], error.condition))
            return self.end(1)
        except IqTimeout:
            say("refused code=none condition=timeout")
            return self.end(1)
        self.learn(result.xml.find("{%s}query" % NS))

    def learn(self, query):
        """Dials all hosts of the other side at once, when they are known."""
        self.theirs = query.findtext("{%s}key" % NS)
        hosts = [host.text for host in query.findall("{%s}host" % NS)][:3]
        self.their_key.set()
        if hosts:
            threading.Thread(target=self.dial_all, args=(hosts,), daemon=True).start()
        else:
            self.give("us")

    def give_up(self):
        how = self.args.give_up
        iq = self.iq("error", self.to, "given-up")
        iq.xml.append(self.query(self.theirs))
        error = ElementTree.SubElement(iq.xml, "{%s}error" % self.xmpp.default_ns, code="503")
        error.text = "Could not connect to any of the hosts."
        if how == "no-id":
            del iq.xml.attrib["id"]
        elif how == "empty-id":
            iq.xml.set("id", "")
        self.xmpp.send_raw(tostring(iq.xml, xmlns=self.xmpp.default_ns, stream=self.xmpp, top_level=True))
        say("gave-up")
        self.give("us")

    def give(self, who):
        self.gave_up[who] = True
        if all(self.gave_up.values()) and not self.winner:
            say("failed")
            self.end(1)

    def end(self, code):
        if not self.outcome.done():
            self.outcome.set_result(code)

    # ---- sockets ----

    def accept(self):
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.guard, args=(self.serve, Wire(sock, self.args.cert)), daemon=True).start()

    def guard(self, run, wire):
        try:
            run(wire)
        except (OSError, Closed, UnicodeDecodeError) as error:
            say("lost %r" % error)

    def serve(self, wire):
        while True:
            command, _, argument = wire.line().partition(":")
            if command == "starttls" and self.args.tls != "off" and not wire.is_secure:
                wire.send("ok")
                wire.secure(serving=True)
            elif command == "key" and argument == self.key and (wire.is_secure or self.args.tls != "require"):
                if self.prove(wire):
                    return
            else:
                wire.send("error")

    def prove(self, wire):
        """The correct key was sent. Returns whether the handshake is complete."""
        self.shown.set()
        self.their_key.wait(PATIENCE)
        if self.is_requestor:
            if not self.win(wire, "ok:" + self.theirs):
                wire.send("error")
                wire.sock.close()
            return True
        wire.send("ok:" + self.theirs)
        if wire.line() == "ok":
            self.win(wire, None)
            return True
        wire.send("error")
        return False

    def dial_all(self, hosts):
        dials = [threading.Thread(target=self.dial, args=(host,), daemon=True) for host in hosts]
        for dial in dials:
            dial.start()
        for dial in dials:
            dial.join()
        if not self.winner:
            self.loop.call_soon_threadsafe(self.give_up)

    def dial(self, host):
        try:
            name, port = host.rsplit(":", 1)
            wire = Wire(socket.create_connection((name.strip("[]"), int(port)), PATIENCE), self.args.cert)
            self.knock(wire)
        except (OSError, ValueError, Closed) as error:
            say("dial-failed host=%s why=%r" % (host, error))

    def knock(self, wire):
        if self.args.nonsense:
            for line in ["", "KEY:" + self.theirs, "key:wrong"]:
                wire.send(line)
                assert wire.line().partition(":")[0] == "error"
        if self.args.tls != "off":
            wire.send("starttls")
            if wire.line().partition(":")[0] == "ok":
                wire.secure(serving=False)
            elif self.args.tls == "require":
                wire.sock.close()
                raise Closed
        wire.send("key:" + self.theirs)
        self.shown.set()
        if wire.line() != "ok:" + self.key:
            wire.sock.close()
            raise Closed
        if not self.win(wire, "ok" if self.is_requestor else None):
            wire.sock.close()

    def win(self, wire, last_word):
        """Takes this connection, if there is none yet."""
        with self.lock:
            if self.winner:
                return False
            self.winner = wire
            if last_word:
                wire.send(last_word)
        say("established tls=%s" % ("yes" if wire.is_secure else "no"))
        threading.Thread(target=self.serve_stream, args=(wire,), daemon=True).start()
        return True

    def serve_stream(self, wire):
        code = 0
        try:
            wire.stream()
        except OSError as error:
            say("broken %r" % error)
            code = 1
        self.loop.call_soon_threadsafe(self.end, code)


async def main():
    args = argparse.ArgumentParser()
    args.add_argument("role", choices=["open", "accept", "deaf"])
    for name in ["jid", "server", "password", "secret", "to", "listen", "cert", "key"]:
        args.add_argument("--" + name)
    args.add_argument("--host", action="append")
    args.add_argument("--tls", choices=["off", "prefer", "require"], default="off")
    args.add_argument("--give-up", choices=["id", "no-id", "empty-id"], default="id")
    args.add_argument("--late", action="store_true")
    args.add_argument("--nonsense", action="store_true")
    peer = Peer(args.parse_args())
    await peer.connect()
    if peer.args.role == "open":
        await peer.ask()
    code = await peer.outcome
    await peer.xmpp.disconnect()
    say("over code=%d" % code)
    os._exit(code)


asyncio.run(main())
