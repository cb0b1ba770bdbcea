# SPDX-License-Identifier: BSD-3-Clause
"""A client of vfio-user, as far as tests of the program need one: header, version, regions."""

import array
import errno
import json
import socket
import struct

VERSION, DMA_MAP, GET_REGION_INFO, SET_IRQS, READ, WRITE, RESET, WRITE_MULTI = 1, 2, 5, 8, 9, 10, 13, 15
HEADER = struct.Struct("<HHIII")
REPLY, ERROR = 1, 0x20
BAR0, BAR1, BAR2, CONFIG, CONTROL = 0, 1, 2, 7, 9
REQ = 4


class Refused(OSError):
    """An error that the server answered with."""


class Client:
    """A connection whose version is agreed."""

    def __init__(self, path=None, sock=None, timeout=20):
        self.sock = sock or socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        if sock is None:
            self.sock.connect(str(path))
        self.number = 0
        try:
            capabilities = json.dumps({"capabilities": {"max_msg_fds": 8}}).encode() + b"\0"
            reply = self.command(VERSION, struct.pack("<HH", 0, 1) + capabilities)
        except OSError:
            self.sock.close()
            raise
        self.capabilities = json.loads(reply[4:].rstrip(b"\0"))["capabilities"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise ConnectionResetError(errno.ECONNRESET, "the server has hung up")
            data += more
        return data

    def command(self, command, payload=b"", fds=()):
        self.number = self.number % 0xffff + 1
        message = HEADER.pack(self.number, command, HEADER.size + len(payload), 0, 0) + payload
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.sock.sendmsg([message], ancillary)
        if sent < len(message):
            self.sock.sendall(message[sent:])
        number, answered, size, flags, error = HEADER.unpack(self.receive(HEADER.size))
        assert (number, answered, flags & 0xf) == (self.number, command, REPLY)
        if flags & ERROR:
            raise Refused(error, f"command {command} is refused")
        return self.receive(size - HEADER.size)

    def read(self, region, offset, size):
        return self.command(READ, struct.pack("<QII", offset, region, size))[16:]

    def write(self, region, offset, data):
        self.command(WRITE, struct.pack("<QII", offset, region, len(data)) + data)

    def region_size(self, region):
        info = self.command(GET_REGION_INFO, struct.pack("<IIIIQQ", 32, 0, region, 0, 0, 0))
        return struct.unpack_from("<IIIIQQ", info)[4]

    def irq_fd(self, index, fd):
        """An eventfd that the first interrupt of a type signals."""
        self.command(SET_IRQS, struct.pack("<IIIII", 20, 1 << 2 | 1 << 5, index, 0, 1), [fd])
