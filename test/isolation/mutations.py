# SPDX-License-Identifier: BSD-3-Clause
"""Weakened checks of the gate, as text that becomes other text in one of its files; each must be noticed.
`requests` are those of which the cases that are never right are tried, `attacks` functions of
attacks_*.py.
"""

import dataclasses

JUDGE, MEMORY, RINGS = "gate_judge.c", "gate_memory.c", "gate_rings.c"
CONN, SOCKET = "gate_conn.c", "gate_socket.c"


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One check less."""
    name: str
    file: str
    old: str
    new: str
    requests: tuple = ()
    attacks: tuple = ()

    def __str__(self):
        return self.name

    def apply(self, text):
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {text.count(self.old)} places in {self.file}")
        return text.replace(self.old, self.new)


def without(name, file, condition, requests=(), attacks=()):
    """An if whose condition is never true."""
    return Mutation(name, file, f"if ({condition})", f"if ((0) && ({condition}))", requests, attacks)


MUTATIONS = (
    # the frame
    without("any version", JUDGE, "(flags & GATE_VERSION_MASK) != GATE_VERSION",
            ("SET_FEATURES", "SET_MEM_TABLE")),
    without("answers are taken for questions", JUDGE, "(flags & GATE_REPLY) != 0", ("SET_FEATURES",)),
    without("any size", JUDGE, "size < row->size_min || size > row->size_max",
            ("SET_VRING_ADDR", "SET_LOG_BASE")),
    without("surplus descriptors", CONN, "in->surplus", ("SET_MEM_TABLE",)),
    # the table
    without("requests that are not offered", JUDGE, "row->fate == GATE_FATE_REFUSED",
            ("POSTCOPY_ADVISE", "POSTCOPY_LISTEN"), ("postcopy",)),
    without("protocol features that were not negotiated", JUDGE,
            "row->feature != GATE_PF_NONE && !gate_has(s->protocol_features, row->feature)",
            ("GET_CONFIG", "SET_STATUS", "NET_SET_MTU")),
    without("any phase", JUDGE, "(row->phases & GATE_IN(gate_phase(s))) == 0",
            ("SET_MEM_TABLE", "SET_LOG_BASE", "SET_INFLIGHT_FD")),
    without("any number of descriptors", JUDGE, "c->nb_fds < row->fds_min || c->nb_fds > row->fds_max",
            ("SET_FEATURES", "SET_VRING_NUM", "GET_VRING_BASE")),
    without("any ring number", JUDGE, "index >= GATE_MAX_RINGS", ("SET_VRING_NUM", "SET_VRING_ENABLE")),
    # values
    without("features that were not offered", JUDGE, "(bits & ~c->offer->features) != 0",
            ("SET_FEATURES",)),
    without("features change under way", JUDGE,
            "s->nb_started > 0 && ((s->features ^ bits) & ~(UINT64_C(1) << GATE_F_LOG_ALL)) != 0",
            ("SET_FEATURES",)),
    without("protocol features that were not offered", JUDGE,
            "(bits & ~c->offer->protocol_features) != 0", ("SET_PROTOCOL_FEATURES",)),
    without("protocol features change under way", JUDGE,
            "c->state->nb_started > 0 && bits != c->state->protocol_features",
            ("SET_PROTOCOL_FEATURES",)),
    Mutation("configuration beyond its end", JUDGE,
             "p->config.offset > GATE_CONFIG_SIZE - p->config.size", "false", ("GET_CONFIG",)),
    without("status of any size", JUDGE, "u64 > UINT8_MAX", ("SET_STATUS",)),
    Mutation("any MTU", JUDGE, "u64 < MTU_MIN || u64 > MTU_MAX ?", "u64 == 1 ?", ("NET_SET_MTU",)),
    Mutation("any back channel", JUDGE, "c->fds[0].kind != GATE_FD_SOCKET ?", "c->nb_fds == 0 ?",
             ("SET_BACKEND_REQ_FD",)),
    # memory
    without("empty regions", MEMORY, "w->size == 0", ("SET_MEM_TABLE",)),
    Mutation("regions that wrap", MEMORY, "w->gpa > UINT64_MAX - (w->size - 1) ||", "",
             ("SET_MEM_TABLE",)),
    Mutation("unaligned regions", MEMORY,
             'if (w->offset % PAGE != 0)\n\t\treturn "an offset that is not aligned"',
             'if (w->offset == 1)\n\t\treturn "an offset that is not aligned"', ("SET_MEM_TABLE",)),
    without("memory of any kind", MEMORY, "r->file.kind != GATE_FD_MEMORY", ("SET_MEM_TABLE",)),
    without("regions longer than their files", MEMORY, "w->offset + w->size > r->file.size",
            ("SET_MEM_TABLE",), ("memory_of_empty_files",)),
    Mutation("regions that overlap", MEMORY, "if (overlap(a->gpa, a->size, b->gpa, b->size) ||",
             "if (", ("SET_MEM_TABLE",)),
    without("a table with fewer descriptors", MEMORY, "c->nb_fds != n", ("SET_MEM_TABLE",),
            ("tables_without_descriptors",)),
    Mutation("a log outside its file", MEMORY,
             'if (offset + size > c->fds[0].size)\n\t\treturn "a log longer than its file"',
             'if (false)\n\t\treturn "a log longer than its file"', ("SET_LOG_BASE",),
             ("log_in_others_memory",)),
    without("a log too short", MEMORY, "!gate_log_covers(size, s->regions, s->nb_regions)",
            ("SET_LOG_BASE",)),
    Mutation("in-flight regions too short", MEMORY, "if (size < least ||", "if (", ("SET_INFLIGHT_FD",)),
    Mutation("in-flight regions outside their files", MEMORY,
             'if (offset + size > c->fds[0].size)\n\t\treturn "a region longer than its file"',
             'if (false)\n\t\treturn "a region longer than its file"', ("SET_INFLIGHT_FD",)),
    without("any queues in flight", MEMORY, "queues == 0 || queues > c->offer->rings",
            ("GET_INFLIGHT_FD", "SET_INFLIGHT_FD"), ("inflight_asked_for",)),
    # rings
    without("ring sizes", RINGS, "p->state.num == 0 || p->state.num > GATE_RING_SIZE_MAX",
            ("SET_VRING_NUM",)),
    without("ring sizes no power of two", RINGS, "!packed && (r->num & (r->num - 1)) != 0",
            ("SET_VRING_NUM",)),
    Mutation("areas that begin in a region", RINGS, "|| a->size > r->size - off)", ")",
             (), ("ring_cut_short_by_its_region",)),
    without("areas that are not aligned", RINGS, "!aligned", ("SET_VRING_ADDR",)),
    without("rings of no size", RINGS, "r->num == 0", ("SET_VRING_KICK",)),
    Mutation("kicks of any kind", RINGS, "c->nb_fds > 0 && !fd_rings(c) ?", "c->nb_fds > 9 && !fd_rings(c) ?",
             ("SET_VRING_CALL",)),
    Mutation("enabled by any number", RINGS, "p->state.num > 1 ?", "p->state.num == 3 ?",
             ("SET_VRING_ENABLE",)),
    # time and room
    without("half a message", CONN, "c->from_front.deadline != 0 && now >= c->from_front.deadline",
            (), ("half_messages_end",)),
    Mutation("answers that wait for room", CONN,
             "more |= c->to_front.full + c->to_lib.full < full;", "(void)full;", (),
             ("answers_not_read",)),
    Mutation("any number of connections", SOCKET,
             "return sock->nb_front + sock->nb_drain >= gate_connections(gate) ||", "return", (),
             ("many_connections",)),
)
