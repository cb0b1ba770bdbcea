# SPDX-License-Identifier: BSD-3-Clause
"""Requests, as lib/gate's table (gate_table, JSON) and the fields below have them, and the cases that
are made from these: each field with every wrong value of its kind, sizes, header flags, descriptors.

What cannot be right, whatever the state, is marked so: Case.wrong. The suite asserts that it is
refused; of all others only that nobody else notices.
"""

import dataclasses
import functools
import json
import os
import struct
import subprocess

from harness import build_dir
from vhost_user import NEED_REPLY, NO_FD, REPLY, VERSION

PAGE = 4096
TOP = 1 << 64
MAX_RINGS, MAX_REGIONS, MAX_SIZE = 256, 8, 32768
CONFIG = 256


@dataclasses.dataclass(frozen=True)
class Row:
    """One request of the table."""
    request: int
    name: str
    size_min: int
    size_max: int
    fds_min: int
    fds_max: int
    reply: str
    feature: int
    ring: str
    fate: str
    phases: tuple


@functools.cache
def rows():
    """{request: Row}"""
    text = subprocess.run([os.path.join(build_dir(), "test", "isolation", "gate_table")],
                          check=True, capture_output=True, text=True).stdout
    names = [f.name for f in dataclasses.fields(Row)]
    return {row["request"]: Row(**{n: tuple(row[n]) if n == "phases" else row[n] for n in names})
            for row in json.loads(text)}


# (field, format, kind), in the order of the payload; what follows the last field is bytes.
REGION = (("gpa", "Q", "gpa"), ("size", "Q", "size"), ("uva", "Q", "uva"), ("offset", "Q", "offset"))
STATE = (("ring", "I", "ring"), ("num", "I", "number"))
FILE = (("ring", "Q", "ring_fd"),)
U64 = (("value", "Q", "number"),)
CONFIG_HEAD = (("offset", "I", "config"), ("size", "I", "config"), ("flags", "I", "number"))
INFLIGHT = (("size", "Q", "size"), ("offset", "Q", "offset"), ("queues", "H", "queues"),
            ("queue_size", "H", "ring_size"))
FIELDS = {
    "SET_FEATURES": (("features", "Q", "mask"),),
    "SET_MEM_TABLE": (("regions", "I", "regions"), ("padding", "I", "number"), *REGION,
                      *((f"{name}1", form, kind) for name, form, kind in REGION)),
    "SET_LOG_BASE": (("size", "Q", "size"), ("offset", "Q", "offset")),
    "SET_VRING_NUM": (("ring", "I", "ring"), ("num", "I", "ring_size")),
    "SET_VRING_ADDR": (("ring", "I", "ring"), ("flags", "I", "number"), ("desc", "Q", "area"),
                       ("used", "Q", "area"), ("avail", "Q", "area"), ("log", "Q", "gpa")),
    "SET_VRING_BASE": STATE, "GET_VRING_BASE": STATE, "SET_VRING_ENABLE": STATE,
    "SET_VRING_ENDIAN": STATE, "VRING_KICK": STATE,
    "SET_VRING_KICK": FILE, "SET_VRING_CALL": FILE, "SET_VRING_ERR": FILE,
    "SET_PROTOCOL_FEATURES": (("features", "Q", "mask"),),
    "SEND_RARP": U64, "NET_SET_MTU": U64, "SET_STATUS": U64, "CLOSE_CRYPTO_SESSION": U64,
    "IOTLB_MSG": (("iova", "Q", "gpa"), ("size", "Q", "size"), ("uva", "Q", "uva"),
                  ("perm", "B", "number"), ("type", "B", "number")),
    "GET_CONFIG": CONFIG_HEAD, "SET_CONFIG": CONFIG_HEAD,
    "GET_INFLIGHT_FD": INFLIGHT, "SET_INFLIGHT_FD": INFLIGHT,
    "ADD_MEM_REG": (("padding", "Q", "number"), *REGION),
    "REM_MEM_REG": (("padding", "Q", "number"), *REGION),
    "SET_DEVICE_STATE_FD": (("direction", "I", "number"), ("phase", "I", "number")),
    "CREATE_CRYPTO_SESSION": U64,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One message, and where its descriptors go: `at` is the byte that they come with."""
    request: int
    what: str
    payload: bytes
    fds: tuple = ()             # file descriptors, or names of files.Zoo
    flags: int = VERSION | NEED_REPLY
    size: int = -1              # of the header, if it is not that of the payload
    at: int = 0
    wrong: bool = False         # to be refused in any state

    def raw(self):
        size = len(self.payload) if self.size < 0 else self.size
        return struct.pack("=III", self.request, self.flags, size) + self.payload

    @property
    def whole(self):
        """Does the next message begin behind this one?"""
        return self.size in (-1, len(self.payload))

    def __str__(self):
        row = rows().get(self.request)
        return f"{row.name if row else self.request}: {self.what}"


def values(kind, bits, right, hints):
    """Wrong and odd values for a field; hints: {"gpa": [...], ...} of others' addresses and sizes."""
    top = 1 << bits
    found = {0, 1, 2, top - 1, top - 2, top >> 1, (top >> 1) - 1, right + 1, right - 1}
    if kind in ("ring", "ring_fd", "queues"):
        found |= {3, 4, 5, 127, 128, 129, MAX_RINGS - 1, MAX_RINGS, MAX_RINGS + 1, 0x10000, 0x1ff}
    if kind == "ring_fd":
        found |= {right | NO_FD, NO_FD | 0xff, right | NO_FD << 1, right | 1 << 32}
    if kind == "ring_size":
        found |= {3, 5, 63, 65, 256, MAX_SIZE - 1, MAX_SIZE, MAX_SIZE + 1, 65535, 65536, 65537}
    if kind == "regions":
        found |= {3, MAX_REGIONS - 1, MAX_REGIONS, MAX_REGIONS + 1, 255, 1 << 16}
    if kind == "config":
        found |= {8, 11, 12, 255, CONFIG, CONFIG + 1, 268, 4096, 1 << 16}
    if kind == "mask":
        found |= {right ^ 1 << bit for bit in range(bits)}
    if kind in ("size", "offset"):
        found |= {PAGE - 1, PAGE, PAGE + 1, right + PAGE, right - PAGE, right * 2, 1 << 32, 1 << 36,
                  1 << 40, 1 << 46, (1 << 47) - PAGE, 1 << 47, 1 << 52, TOP - PAGE, TOP - right}
    if kind in ("gpa", "uva", "area"):
        found |= {right + 2, right + 8, right + PAGE, right - PAGE, PAGE, TOP - PAGE, 1 << 47, 1 << 52}
        found |= set(hints.get(kind, ()))
    return sorted({v % top for v in found} - {right})


def layout(row, length):
    """[(field, format, kind, offset)] of as many fields as there is payload for."""
    at, found = 0, []
    for name, form, kind in FIELDS.get(row.name, ()):
        if at + struct.calcsize(form) <= length:
            found.append((name, form, kind, at))
        at += struct.calcsize(form)
    return found


def never(row, field, value, right):
    """Is that value wrong in any state?"""
    name, _, kind, _ = field
    if row.fate == "refused":
        return True
    if kind == "ring":
        return value >= MAX_RINGS
    if kind == "ring_fd":
        return value & ~(NO_FD | 0xff) != 0
    if kind == "ring_size":
        return row.name == "SET_VRING_NUM" and (value == 0 or value > MAX_SIZE)
    if kind == "regions":
        return value != right       # neither the payload nor the descriptors say so
    if row.name in ("SET_MEM_TABLE", "ADD_MEM_REG") and name.rstrip("1") in ("size", "offset"):
        return value == 0 and name.startswith("size") or value >= 1 << 40
    if row.name in ("SET_LOG_BASE", "SET_INFLIGHT_FD") and kind in ("size", "offset"):
        return value == 0 and kind == "size" or value >= 1 << 40
    return False


def field_cases(row, payload, fds, hints):
    for field in layout(row, len(payload)):
        name, form, kind, at = field
        right = struct.unpack_from("=" + form, payload, at)[0]
        for value in values(kind, 8 * struct.calcsize(form), right, hints):
            changed = bytearray(payload)
            struct.pack_into("=" + form, changed, at, value)
            yield Case(row.request, f"{name} {value:#x}", bytes(changed), fds,
                       wrong=never(row, field, value, right))


def size_cases(row, payload, fds):
    sizes = {0, 1, len(payload) - 1, len(payload) + 1, row.size_min - 1, row.size_max + 1, 4096}
    for size in sorted(s for s in sizes if s >= 0 and s != len(payload)):
        yield Case(row.request, f"payload of {size}", (payload + bytes(size))[:size], fds,
                   wrong=not row.size_min <= size <= row.size_max)
    for size in (len(payload) + 1, 1 << 16, 1 << 31, (1 << 32) - 1):
        yield Case(row.request, f"header says {size}", payload, fds, size=size)


def flag_cases(row, payload, fds):
    for flags, wrong in ((VERSION, False), (0, True), (2, True), (3, True), (VERSION | REPLY, True),
                         (VERSION | REPLY | NEED_REPLY, True), (VERSION | 0x10, False),
                         (VERSION | 1 << 31, False), ((1 << 32) - 1, True)):
        yield Case(row.request, f"flags {flags:#x}", payload, fds, flags, wrong=wrong)


def descriptor_cases(row, payload, fds, zoo):
    """zoo: names of descriptors of other types."""
    for count in sorted({0, 1, 2, 7, 8, 9, 32} - {len(fds)}):
        spare = fds or ("eventfd",)
        wrong = not row.fds_min <= count <= row.fds_max
        if row.name == "SET_MEM_TABLE":
            wrong = True
        if row.ring == "file" and count == 0:
            wrong = False       # an old way of saying that there is none
        yield Case(row.request, f"{count} descriptors", payload, (spare * 32)[:count], wrong=wrong)
    if row.name == "SET_MEM_TABLE":
        pieces = struct.unpack_from("=QQQQ", payload, 8)
        many = b"".join(struct.pack("=QQQQ", pieces[0] + n * PAGE, PAGE, pieces[2] + n * PAGE, n * PAGE)
                        for n in range(MAX_REGIONS))
        yield Case(row.request, "8 regions, 9 descriptors", struct.pack("=II", MAX_REGIONS, 0) + many,
                   (fds[0],) * 9, wrong=True)
    for name in zoo if row.fds_max else ():
        yield Case(row.request, f"a descriptor of type {name}", payload, (name, *fds[1:]))
    if fds:
        for at in sorted({1, 11, 12, 13, 11 + len(payload)}):
            if at < 12 + len(payload):
                yield Case(row.request, f"descriptors with byte {at}", payload, fds, at=at)


def cases(request, right, hints, zoo):
    """All cases of a request, given one that is right: (payload, fds)."""
    payload, fds = right
    row = rows().get(request)
    if row is None:
        for size in (0, 8, 4096):
            yield Case(request, f"unknown, {size} bytes", bytes(size), fds, wrong=True)
        return
    yield Case(request, "as it should be", payload, fds, wrong=row.fate == "refused")
    yield from field_cases(row, payload, fds, hints)
    yield from size_cases(row, payload, fds)
    yield from flag_cases(row, payload, fds)
    yield from descriptor_cases(row, payload, fds, zoo)


UNKNOWN = (0, 44, 45, 255, 256, 1 << 16, 1 << 31, (1 << 32) - 1)
