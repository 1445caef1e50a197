"""One end of a stream, an independent implementation from the text of 'A Proposal to the DTCP/JOBS/PASS madness', December 2002.

    slixmpp_stream.py target    --jid JID --password P --server HOST:PORT
    slixmpp_stream.py initiator --jid JID --password P --server HOST:PORT --to JID [--listen] [--via JID=ADDR:PORT]…

When the stream is clear to send, it echoes all bytes, and ends when the other side has. It prints events on standard
output. With --side it writes the stream id to a proxy as the mail's samples do.
"""

import argparse
import asyncio
import socket
import sys
import xml.etree.ElementTree as ET

from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

NS = "whoknows"
SID = "sample-stream-id"
PATIENCE = 30


def say(*words):
    print(*words, flush=True)


def query(sid=None, *children, name="sid"):
    element = ET.Element(f"{{{NS}}}query")
    if sid is not None:
        element.set(name, sid)
    for tag, attributes in children:
        ET.SubElement(element, f"{{{NS}}}{tag}", attributes)
    return element


async def echo(sock):
    say("clear to send")
    loop, total, held = asyncio.get_running_loop(), 0, []
    # Reads everything first, then sends it back, so that both directions are half-closed in turn.
    while octets := await loop.sock_recv(sock, 65536):
        held.append(octets)
    for octets in held:
        await loop.sock_sendall(sock, octets)
        total += len(octets)
    sock.close()
    say("echoed", total)


class End(ClientXMPP):
    def __init__(self, args):
        plain = {"unencrypted_plain": True, "unencrypted_scram": True}
        super().__init__(args.jid, args.password, plugin_config={"feature_mechanisms": plain})
        self.args = args
        self.enable_plaintext = True
        self.enable_starttls = self.enable_direct_tls = False
        self.over = asyncio.get_event_loop().create_future()
        self.add_event_handler("session_start", lambda _: self.start())
        self.register_handler(Callback("query", MatchXPath(f"{{jabber:client}}iq/{{{NS}}}query"), self.heard))

    def start(self):
        self.send_presence()
        say("online as", self.boundjid)

    def heard(self, iq):
        asyncio.ensure_future(self.guard(self.answer(iq)))

    async def guard(self, work):
        try:
            await work
        except (OSError, IqError, IqTimeout) as error:
            say("failed:", type(error).__name__, getattr(error, "condition", error))
            if not self.over.done():
                self.over.set_result(1)

    def say_iq(self, kind, to, payload, id=None):
        iq = self.make_iq(id=id if id is not None else self.new_id(), ito=to, itype=kind)
        iq.append(payload)
        return iq.send(timeout=PATIENCE)

    def refuse(self, iq, condition):
        answer = iq.reply()
        answer.error()
        answer["error"]["condition"] = condition
        answer.send()

    async def claim(self, sock, at, dialled):
        """PF4, A6.4: the dialled address, with our own port."""
        endpoint = {"ip": dialled, "port": str(sock.getsockname()[1])}
        name = "side" if self.args.side else "sid"
        return self.say_iq("set", at, query(self.sid, ("endpoint", endpoint), name=name))

    async def dial(self, connection):
        sock = socket.socket()
        sock.setblocking(False)
        where = (connection.get("ip"), int(connection.get("port")))
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, where), 10)
        except (OSError, asyncio.TimeoutError):
            sock.close()
            return None
        return sock

    async def finish(self, sock):
        await echo(sock)
        if not self.over.done():
            self.over.set_result(0)


class Target(End):
    async def answer(self, iq):
        offer = iq.xml.find(f"{{{NS}}}query")
        if iq["type"] != "set":
            return
        self.sid = offer.get("sid")
        for connection in offer.findall(f"{{{NS}}}connection"):
            if sock := await self.dial(connection):
                say("connected to", connection.get("jid"))
                answer = await self.claim(sock, connection.get("jid"), connection.get("ip"))
                # PF5 at once: a proxy answers PF4 only after the initiator's claim.
                used = query(self.sid, ("connection", {"jid": connection.get("jid")}))
                self.say_iq("result", iq["from"], used, id=iq["id"])
                await answer
                return await self.finish(sock)
        self.refuse(iq, "item-not-found")
        self.over.set_result(1)


class Initiator(End):
    def start(self):
        super().start()
        asyncio.ensure_future(self.guard(self.offer()))

    async def offer(self):
        self.sid, self.accepted, self.claimed = SID, {}, asyncio.get_running_loop().create_future()
        self.connections = []
        if self.args.listen:
            server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            self.connections.append({"jid": str(self.boundjid), "ip": "127.0.0.1", "port": str(port)})
        for via in self.args.via:
            jid, at = via.rsplit("=", 1)
            ip, port = at.rsplit(":", 1)
            self.connections.append({"jid": jid, "ip": ip, "port": port})
        offer = query(self.sid, *(("connection", each) for each in self.connections))
        answer = await self.say_iq("set", self.args.to, offer)
        used = answer.xml.find(f"{{{NS}}}query/{{{NS}}}connection").get("jid")
        say("uses", used)
        if used == str(self.boundjid):
            return await self.finish_streams(await self.claimed)
        for connection in self.connections:
            if connection["jid"] == used and (sock := await self.dial(connection)):
                await (await self.claim(sock, used, connection["ip"]))
                return await self.finish(sock)
        raise OSError("the proxy cannot be reached")

    async def accept(self, reader, writer):
        self.accepted[writer.get_extra_info("peername")[1]] = (reader, writer)

    async def answer(self, iq):
        """PF6: a claim of the target; its socket may arrive later."""
        endpoint = iq.xml.find(f"{{{NS}}}query/{{{NS}}}endpoint")
        if iq["type"] != "set" or endpoint is None:
            return
        port = int(endpoint.get("port"))
        for _ in range(200):
            if port in self.accepted:
                break
            await asyncio.sleep(0.01)
        if port not in self.accepted or iq.xml.find(f"{{{NS}}}query").get("sid") != self.sid:
            return self.refuse(iq, "item-not-found")
        self.say_iq("result", iq["from"], query(), id=iq["id"])
        self.claimed.set_result(self.accepted[port])

    async def finish_streams(self, streams):
        say("clear to send")
        reader, writer = streams
        octets = await reader.read()
        writer.write(octets)
        await writer.drain()
        writer.close()
        say("echoed", len(octets))
        self.over.set_result(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["initiator", "target"])
    for name in ["--jid", "--password", "--server"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--to")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--side", action="store_true")
    parser.add_argument("--via", action="append", default=[])
    args = parser.parse_args()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    end = {"initiator": Initiator, "target": Target}[args.role](args)
    host, port = args.server.rsplit(":", 1)
    end.connect(host, int(port))
    sys.exit(loop.run_until_complete(end.over))


main()
