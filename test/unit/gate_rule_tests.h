/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the tests of the judge share: a connection that is brought to a phase, rules with their
 * violations. One thread.
 */

#ifndef GATE_RULE_TESTS_H
#define GATE_RULE_TESTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "gate_frontend.h"

#define DIM(a) (sizeof(a) / sizeof((a)[0]))

#define NEW	 GATE_PHASE_NEW
#define FEATURES GATE_PHASE_FEATURES
#define MEMORY	 GATE_PHASE_MEMORY
#define RUNNING	 GATE_PHASE_RUNNING

static struct gate_offer offer;
static struct gate_state conn;
static struct gate_judgement j;
static struct gate_fd fds[GATE_MAX_FDS];

static void
begin(void)
{
	unsigned int i;

	offer = (struct gate_offer){.features = GF_OFFER,
		.protocol_features = GF_PROTOCOL,
		.rings = 4,
		.queues = 2,
		.space_max = UINT64_C(1) << 40,
		.log_max = 1 << 20,
		.inflight_max = 1 << 20};
	memset(&conn, 0, sizeof(conn));
	for (i = 0; i < GATE_MAX_FDS; i++)
		fds[i] = (struct gate_fd){GATE_FD_MEMORY, 100 + i, GF_SIZE_2, 4096};
}

static const char *
say(struct gate_message m, unsigned int nb_fds)
{
	const char *why = gate_judge_header(m.request, m.flags, m.size);

	if (why != NULL)
		return why;
	gate_judge(&offer, &conn, &m, fds, nb_fds, &j);
	return j.reason;
}

static void
must(struct gate_message m, unsigned int nb_fds)
{
	const char *why = say(m, nb_fds);

	if (why != NULL)
		fail_msg("%s: %s", gate_proto_name(m.request), why);
}

static inline void
must_with(struct gate_message m, enum gate_fd_kind kind)
{
	const struct gate_fd old = fds[0];

	fds[0].kind = kind;
	must(m, 1);
	fds[0] = old;
}

static inline void
start_ring(uint32_t ring)
{
	must(gf_state(GATE_SET_VRING_NUM, ring, GF_NUM), 0);
	must(gf_state(GATE_SET_VRING_BASE, ring, 0), 0);
	must(gf_addr(ring, GF_UVA + ring * GF_RING), 0);
	must_with(gf_u64(GATE_SET_VRING_KICK, ring), GATE_FD_EVENT);
	must_with(gf_u64(GATE_SET_VRING_CALL, ring), GATE_FD_EVENT);
}

static inline void
come_to(enum gate_phase phase, uint64_t features)
{
	must(gf_u64(GATE_SET_PROTOCOL_FEATURES, GF_PROTOCOL), 0);
	must(gf_empty(GATE_SET_OWNER), 0);
	if (phase >= FEATURES)
		must(gf_u64(GATE_SET_FEATURES, features), 0);
	if (phase >= MEMORY)
		must(gf_table(2), 2);
	if (phase >= RUNNING) {
		start_ring(0);
		start_ring(1);
	}
	assert_int_equal(gate_phase(&conn), phase);
}

/* ---- each rule ---- */

struct rule {
	enum gate_phase phase;
	const char *why; /* NULL: nothing is wrong */
	struct gate_message msg;
	unsigned int nb_fds;
	enum gate_fd_kind kind;
};

static inline struct gate_message
with_flags(struct gate_message m, uint32_t flags)
{
	m.flags = flags;
	return m;
}

static inline struct gate_message
with_size(struct gate_message m, uint32_t size)
{
	m.size = size;
	return m;
}

static inline struct gate_message
with_addr(uint32_t ring, uint64_t desc, uint64_t avail, uint64_t used, uint32_t flags, uint64_t log)
{
	struct gate_message m = gf_addr(ring, 0);

	m.payload.addr.flags = flags;
	m.payload.addr.desc = desc;
	m.payload.addr.avail = avail;
	m.payload.addr.used = used;
	m.payload.addr.log = log;
	return m;
}

/* The second region changed; the rings are in the first. */
static inline struct gate_message
with_region(uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset)
{
	struct gate_message m = gf_table(2);

	m.payload.table.regions[1] = (struct gate_wire_region){gpa, size, uva, offset};
	return m;
}

static inline void
check(const struct rule *rules, size_t n, uint64_t features)
{
	static struct gate_state before;
	const char *why;
	size_t i;

	for (i = 0; i < n; i++) {
		const struct rule *r = &rules[i];

		begin();
		come_to(r->phase, features);
		if (r->nb_fds > 0)
			fds[0].kind = r->kind;
		before = conn;
		why = say(r->msg, r->nb_fds);
		if ((why == NULL) != (r->why == NULL) || (why != NULL && strcmp(why, r->why) != 0))
			fail_msg("rule %zu, %s: \"%s\" instead of \"%s\"", i,
				gate_proto_name(r->msg.request), why != NULL ? why : "accepted",
				r->why != NULL ? r->why : "accepted");
		/* What is refused has changed nothing. */
		if (why != NULL)
			assert_memory_equal(&conn, &before, sizeof(conn));
	}
}

#define U64	 gf_u64
#define STATE	 gf_state
#define END	 (GF_UVA + GF_SIZE)
#define MEM	 GATE_FD_MEMORY
#define EVENT	 GATE_FD_EVENT
#define NOT_THIS 0, GATE_FD_OTHER
#define NO_FDS	 NOT_THIS
#define WRAPS	 "a region that wraps"
#define OVERLAP	 "regions that overlap"
#define FD_COUNT "wrong number of descriptors"

#endif /* GATE_RULE_TESTS_H */
