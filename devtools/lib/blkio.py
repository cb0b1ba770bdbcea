# SPDX-License-Identifier: BSD-3-Clause
"""blkio.c, a program with Debian 13's libblkio, whose driver virtio-blk-vhost-user is a client of disks.

Debian 12 has no libblkio: it is fetched with the C library that it needs, unpacked in the cache of
image.py, and installed nowhere.

libblkio adds memory region by region (CONFIGURE_MEM_SLOTS), which librte_vhost learns later: Adapter,
between the two, makes tables of them. Only messages pass through it.
"""

import contextlib
import functools
import json
import os
import select
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

from guest.image import apt, cache_dir, locked, new_entry
from guest.qemu11 import LIBRARIES, RELEASE, download
from pmd import PmdError, Process

SOURCE = Path(__file__).with_name("blkio.c")


@functools.lru_cache(maxsize=None)
def _unpacked():
    cache = cache_dir()
    root = cache / f"libblkio-{RELEASE}"
    with locked(cache):
        if not root.exists():
            with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as directory:
                debs = download(Path(directory), ["libblkio-dev"], RELEASE)
                with new_entry(cache, root.name) as work:
                    for deb in debs:
                        apt("dpkg-deb", "-x", str(deb), str(work))
    return root


@functools.lru_cache(maxsize=None)
def _compiled(directory):
    """Arguments that begin a command of blkio.c."""
    root = _unpacked()
    libraries = root / LIBRARIES
    done = subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{root}/usr/include", "-o",
         f"{directory}/blkio", SOURCE, libraries / "libblkio.so.1",
         "-Wl,--allow-shlib-undefined"], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise PmdError(f"blkio.c: {done.stderr.strip()}")
    return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries),
            f"{directory}/blkio"]


class Client(Process):
    """A command of blkio.c, compiled in a directory that lives as long."""

    def __init__(self, directory, *command):
        super().__init__([*_compiled(directory), *command], name="blkio")

    def window(self, what, size, depth, milliseconds):
        """What a benchmark's window found."""
        since = self.mark()
        self.send(f"{what} {size} {depth} {milliseconds}")
        return json.loads(self.expect(r"^{.*}$", 30 + milliseconds / 1000, since)[0])


# --- what librte_vhost does not know yet ---------------------------------------------------------

SET_MEM_TABLE, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES = 5, 15, 16
GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 36, 37, 38
CONFIGURE_MEM_SLOTS = 1 << 15
VERSION, REPLY, NEED_REPLY = 0x1, 0x4, 0x8
MOST_REGIONS = 8


class Adapter:
    """Listens on `front`; each client that comes, one after the other, has a connection to the
    back-end on `back`.
    """

    def __init__(self, front, back):
        self.front = front
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(front)
        self._listener.listen()
        self._stop, stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve, args=(back, stopped), daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._stop)
        self._thread.join()
        self._listener.close()
        os.unlink(self.front)

    def _serve(self, back, stopped):
        while select.select([self._listener, stopped], [], [])[0][0] is self._listener:
            front = self._listener.accept()[0]
            with front, socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.connect(back)
                _Link(front, sock).serve(stopped)
        os.close(stopped)


class _Link:
    def __init__(self, front, back):
        self.front, self.back = front, back
        self.regions = {}       # guest address: (region as it was told, descriptor)
        self.asked = None       # for what the table was sent

    def serve(self, stopped):
        try:
            while stopped not in (ready := select.select([self.front, self.back, stopped], [], [])[0]):
                for sock in ready:
                    message = self._read(sock)
                    if message is None:
                        return
                    (self._to_back if sock is self.front else self._to_front)(*message)
        finally:
            for _, fd in self.regions.values():
                os.close(fd)

    @staticmethod
    def _read(sock):
        """(request, flags, payload, descriptors), or None at the end."""
        head, fds, _, _ = socket.recv_fds(sock, 12, 32)
        if len(head) < 12:
            return None
        request, flags, size = struct.unpack("=III", head)
        payload = b""
        while len(payload) < size:
            part, more, _, _ = socket.recv_fds(sock, size - len(payload), 32)
            payload, fds = payload + part, fds + more
        return request, flags, payload, fds

    @staticmethod
    def _send(sock, request, flags, payload, fds=()):
        socket.send_fds(sock, [struct.pack("=III", request, flags, len(payload)) + payload], fds)

    def _to_front(self, request, flags, payload, fds):
        if request == GET_PROTOCOL_FEATURES:
            payload = struct.pack("=Q", struct.unpack("=Q", payload)[0] | CONFIGURE_MEM_SLOTS)
        elif request == SET_MEM_TABLE:
            request = self.asked
        self._send(self.front, request, flags, payload, fds)
        for fd in fds:
            os.close(fd)

    def _to_back(self, request, flags, payload, fds):
        if request == GET_MAX_MEM_SLOTS:
            self._send(self.front, request, VERSION | REPLY, struct.pack("=Q", MOST_REGIONS))
            return
        if request in (ADD_MEM_REG, REM_MEM_REG):
            self._change(request, payload[8:40], fds)
            payload = struct.pack("=II", len(self.regions), 0) + b"".join(
                region for region, _ in self.regions.values())
            self.asked, request = request, SET_MEM_TABLE
            self._send(self.back, request, flags, payload, [fd for _, fd in self.regions.values()])
            return
        if request == SET_PROTOCOL_FEATURES:
            payload = struct.pack("=Q", struct.unpack("=Q", payload)[0] & ~CONFIGURE_MEM_SLOTS)
        self._send(self.back, request, flags, payload, fds)
        for fd in fds:
            os.close(fd)

    def _change(self, request, region, fds):
        address = region[:8]
        if request == ADD_MEM_REG:
            self.regions[address] = region, fds[0]
        else:
            os.close(self.regions.pop(address)[1])
            for fd in fds:
                os.close(fd)
