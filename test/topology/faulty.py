# SPDX-License-Identifier: BSD-3-Clause
"""A file whose reads and writes fail, stall or come short when a test says so: a file system in user
space (FUSE) that is one regular file, mounted over an empty one in a mount namespace of its own.

    with FaultyFile(path, size) as disk, Backend(..., wrapper=disk.enter): disk.fault("error", EIO)

Run as a program it is the file system's process, which is told what to do on standard input.
"""

import ctypes
import os
import select
import struct
import sys

GETATTR, SETATTR, OPEN, READ, WRITE = 3, 4, 14, 15, 16
RELEASE, FSYNC, FLUSH, INIT, INTERRUPT, FALLOCATE = 18, 20, 25, 26, 36, 43
FORGET, BATCH_FORGET = 2, 42                # not answered
MOST = 1 << 20                              # bytes of a write
ASYNC_DIO, MAX_PAGES, DIRECT_IO = 1 << 15, 1 << 22, 1
CLONE_NEWNS, MS_PRIVATE, MS_REC = 0x20000, 1 << 18, 1 << 14
ENOSYS = 38
TYPE = 0o100600


class FileSystem:
    """The kernel's requests, answered from memory."""

    def __init__(self, path, size):
        self.data = bytearray(size)
        self.how = "ok"
        self.error = 0
        self.held = []
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fd},rootmode={TYPE:o},user_id=0,group_id=0,allow_other"
        for ok in (libc.unshare(CLONE_NEWNS) == 0,
                   libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0,
                   libc.mount(b"faulty", path.encode(), b"fuse.faulty", 0, options.encode()) == 0):
            if not ok:
                sys.exit(os.strerror(ctypes.get_errno()))

    def serve(self):
        """Until standard input ends."""
        print("mounted", flush=True)
        while True:
            ready = select.select([self.fd, 0], [], [])[0]
            if 0 in ready:
                words = os.read(0, 100).split()
                if not words:
                    return
                self.how, self.error = words[0].decode(), int(words[1])
                held, self.held = self.held, []
                for request in held:
                    self._request(request)
                print(f"{self.how}, {len(held)} let go", flush=True)
            if self.fd in ready:
                self._request(os.read(self.fd, MOST + 4096))

    def _request(self, request):
        opcode, unique = struct.unpack_from("=4xIQ", request)
        if opcode in (READ, WRITE, FSYNC, FALLOCATE) and self.how == "stall":
            self.held.append(request)
            return
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        error, answer = self._answer(opcode, request[40:])
        try:
            os.write(self.fd, struct.pack("=IiQ", 16 + len(answer), -error, unique) + answer)
        except FileNotFoundError:
            pass        # who asked was killed

    def _answer(self, opcode, body):
        """(error, what comes behind the header)"""
        if opcode in (READ, WRITE, FSYNC, FALLOCATE) and self.how == "error":
            return self.error, b""
        if opcode == INIT:
            return 0, struct.pack("=IIIIHHIIHH32x", 7, 31, MOST, ASYNC_DIO | MAX_PAGES, 64, 48, MOST, 1,
                                  MOST // 4096, 0)
        if opcode in (GETATTR, SETATTR):
            return 0, struct.pack("=QII6Q10I", 0, 0, 0, 1, len(self.data), len(self.data) // 512, 0, 0, 0,
                                  0, 0, 0, TYPE, 1, 0, 0, 0, 4096, 0)
        if opcode == OPEN:
            return 0, struct.pack("=QII", 0, DIRECT_IO, 0)
        if opcode in (RELEASE, FLUSH, FSYNC):
            return 0, b""
        if opcode not in (READ, WRITE, FALLOCATE):
            return ENOSYS, b""
        offset, size = struct.unpack_from("=8xQI", body)
        if self.how == "short" and size > 512:
            size = size // 1024 * 512
        if opcode == READ:
            return 0, bytes(self.data[offset:offset + size])
        if opcode == WRITE:
            self.data[offset:offset + size] = body[40:40 + size]
            return 0, struct.pack("=II", size, 0)
        length = struct.unpack_from("=16xQ", body)[0]
        self.data[offset:offset + length] = bytes(length)
        return 0, b""


if __name__ == "__main__":
    FileSystem(sys.argv[1], int(sys.argv[2])).serve()
    sys.exit()

# pylint: disable=wrong-import-position
from harness import Process  # noqa: E402


def missing():
    """Why there can't be one here; None if there can."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse, and root to mount"
    return None


class FaultyFile(Process):
    """The process, and what goes in front of a command that is to see the file."""

    def __init__(self, path, size):
        with open(path, "wb"):
            pass
        super().__init__([sys.executable, "-B", __file__, path, size], name="faulty file")
        self.expect("mounted")
        self.enter = ("nsenter", "-t", str(self.pid), "-m", "--")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def fault(self, how, error=0):
        """"ok", "short", "stall", or "error" with its number."""
        since = self.mark()
        self.send(f"{how} {error}")
        return int(self.expect(rf"^{how}, (\d+) let go", since=since)[1])
