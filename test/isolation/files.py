# SPDX-License-Identifier: BSD-3-Clause
"""Descriptors of every type that a front-end may hand over, right or wrong."""

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import tempfile

import ctypes

PAGE = 4096
SIZE = 1 << 21

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long
PUNCH_HOLE = 3          # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def punch(fd, at, size):
    """A hole, whose pages are gone."""
    _libc.fallocate(fd, PUNCH_HOLE, at, size)


def memfd(size=SIZE, seals=0, flags=0):
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING | flags)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def eventfd(value=0, flags=0):
    fd = os.eventfd(0, flags | os.EFD_CLOEXEC)
    if value:
        os.eventfd_write(fd, value)
    return fd


def full_pipe():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(PAGE))
    os.set_blocking(write, True)
    return write, read


FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432       # system calls
SET_STRING, CREATE = 1, 6                       # of fsconfig()


def tmpfs_file():
    """A sparse file in a tmpfs that has no room left, mounted nowhere; None if we may not."""
    fs = _libc.syscall(FSOPEN, b"tmpfs", 0)
    if fs < 0:
        return None
    _libc.syscall(FSCONFIG, fs, SET_STRING, b"size", b"64k", 0)
    _libc.syscall(FSCONFIG, fs, CREATE, None, None, 0)
    mount = _libc.syscall(FSMOUNT, fs, 0, 0)
    os.close(fs)
    if mount < 0:
        return None
    fd = os.open("hostile", os.O_RDWR | os.O_CREAT, dir_fd=mount)
    os.ftruncate(fd, SIZE)
    filler = os.open("filler", os.O_RDWR | os.O_CREAT, dir_fd=mount)
    with contextlib.suppress(OSError):
        while True:
            os.write(filler, bytes(PAGE))
    os.close(filler)
    os.close(mount)
    return fd


class Zoo:
    """One of each, opened once: {name: fd}."""

    def __init__(self, server_socket=None):
        self.scratch = tempfile.mkdtemp(prefix="vfn-zoo-")
        self.keep = []          # what only has to stay open
        path = os.path.join(self.scratch, "file")
        with open(path, "wb") as out:
            out.truncate(SIZE)
        os.mkfifo(os.path.join(self.scratch, "fifo"))
        pair = socket.socketpair()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.path.join(self.scratch, "socket"))
        listening.listen()
        self.keep += [*pair, listening]
        read, write = os.pipe()
        full, other = full_pipe()
        self.fds = {
            "file": os.open(path, os.O_RDWR),
            "file, read only": os.open(path, os.O_RDONLY),
            "file, write only": os.open(path, os.O_WRONLY),
            "file, O_PATH": os.open(path, os.O_PATH),
            "directory": os.open(self.scratch, os.O_RDONLY),
            "fifo": os.open(os.path.join(self.scratch, "fifo"), os.O_RDWR),
            "pipe, read end": read,
            "pipe, write end": write,
            "pipe, full": full,
            "pipe, other end": other,
            "socket": os.dup(pair[0].fileno()),
            "socket, listening": os.dup(listening.fileno()),
            "/dev/null": os.open("/dev/null", os.O_RDWR),
            "/dev/zero": os.open("/dev/zero", os.O_RDWR),
            "/proc/self/mem": os.open("/proc/self/mem", os.O_RDWR),
            "eventfd": eventfd(),
            "eventfd, semaphore": eventfd(flags=os.EFD_SEMAPHORE),
            "eventfd, full": eventfd((1 << 64) - 2),
            "epoll": self.epoll(),
            "timerfd": self.other(_libc.timerfd_create(1, 0)),
            "inotify": self.other(_libc.inotify_init1(0)),
            "signalfd": self.signalfd(),
            "memfd": memfd(),
            "memfd, empty": memfd(0),
            "memfd, a byte": memfd(1),
            "memfd, a byte too short": memfd(SIZE - 1),
            "memfd, large": memfd(1 << 46),
            "memfd, no writes": memfd(seals=fcntl.F_SEAL_WRITE),
            "memfd, sealed size": memfd(seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW),
            "hugetlb": memfd(flags=os.MFD_HUGETLB),
        }
        master, slave = os.openpty()
        self.fds |= {"terminal": slave, "terminal's other end": master}
        if server_socket:
            own = socket.socket(socket.AF_UNIX)
            own.connect(server_socket)
            self.fds["the server's own socket"] = own.detach()
        if (fd := tmpfs_file()) is not None:
            self.fds["file, full tmpfs"] = fd

    @staticmethod
    def other(fd):
        if fd < 0:
            raise OSError(ctypes.get_errno(), "a descriptor for the zoo")
        return fd

    def epoll(self):
        """One that waits for another one."""
        inner, outer = select.epoll(), select.epoll()
        self.keep += [inner, outer]
        outer.register(inner, select.EPOLLIN)
        return os.dup(outer.fileno())

    def signalfd(self):
        mask = (ctypes.c_ulong * 16)()
        mask[0] = 1 << signal.SIGUSR2 - 1
        return self.other(_libc.signalfd(-1, mask, 0))

    def __getitem__(self, name):
        return self.fds[name]

    def resolve(self, fds):
        return [self.fds[fd] if isinstance(fd, str) else fd for fd in fds]

    def close(self):
        for fd in self.fds.values():
            os.close(fd)
        for other in self.keep:
            other.close()
        shutil.rmtree(self.scratch)
