/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The judge of lib/gate: each rule with its violation and, beside it, what just does not violate
 * it. A case brings a connection to a phase, says one thing, and expects a reason or none.
 */

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

	offer = (struct gate_offer){.features = GF_OFFER, .protocol_features = GF_PROTOCOL,
		.rings = 4, .queues = 2, .space_max = UINT64_C(1) << 40, .log_max = 1 << 20,
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

static void
must_with(struct gate_message m, enum gate_fd_kind kind)
{
	const struct gate_fd old = fds[0];

	fds[0].kind = kind;
	must(m, 1);
	fds[0] = old;
}

static void
start_ring(uint32_t ring)
{
	must(gf_state(GATE_SET_VRING_NUM, ring, GF_NUM), 0);
	must(gf_state(GATE_SET_VRING_BASE, ring, 0), 0);
	must(gf_addr(ring, GF_UVA + ring * GF_RING), 0);
	must_with(gf_u64(GATE_SET_VRING_KICK, ring), GATE_FD_EVENT);
	must_with(gf_u64(GATE_SET_VRING_CALL, ring), GATE_FD_EVENT);
}

static void
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

static struct gate_message
with_flags(struct gate_message m, uint32_t flags)
{
	m.flags = flags;
	return m;
}

static struct gate_message
with_size(struct gate_message m, uint32_t size)
{
	m.size = size;
	return m;
}

static struct gate_message
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
static struct gate_message
with_region(uint64_t gpa, uint64_t size, uint64_t uva, uint64_t offset)
{
	struct gate_message m = gf_table(2);

	m.payload.table.regions[1] = (struct gate_wire_region){gpa, size, uva, offset};
	return m;
}

static void
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

static void
headers(void **state)
{
	const struct rule rules[] = {
		{NEW, "no such request", gf_empty(0), NO_FDS},
		{NEW, "no such request", gf_empty(GATE_NB_REQUESTS), NO_FDS},
		{NEW, "no such request", gf_empty(UINT32_MAX), NO_FDS},
		{NEW, "another version of the protocol", with_flags(gf_empty(1), 0), NO_FDS},
		{NEW, "another version of the protocol", with_flags(gf_empty(1), 2), NO_FDS},
		{NEW, "an answer to nothing that was asked", with_flags(gf_empty(1), 5), NO_FDS},
		{NEW, "the size of its payload is wrong", with_size(gf_empty(1), 8), NO_FDS},
		{NEW, "the size of its payload is wrong", with_size(U64(2, 0), 7), NO_FDS},
		{NEW, "the size of its payload is wrong", with_size(U64(2, 0), UINT32_MAX), NO_FDS},
		{FEATURES, "the size of its payload is wrong", with_size(gf_table(1), 8), NO_FDS},
		{NEW, NULL, gf_empty(GATE_GET_FEATURES), NO_FDS},
		{NEW, FD_COUNT, gf_empty(GATE_GET_FEATURES), 1, EVENT},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
not_offered(void **state)
{
	static const uint32_t requests[] = {GATE_IOTLB_MSG, GATE_SET_VRING_ENDIAN,
		GATE_CREATE_CRYPTO_SESSION, GATE_CLOSE_CRYPTO_SESSION, GATE_POSTCOPY_ADVISE,
		GATE_POSTCOPY_LISTEN, GATE_POSTCOPY_END, GATE_RESET_DEVICE, GATE_VRING_KICK,
		GATE_GET_SHARED_OBJECT, GATE_SET_DEVICE_STATE_FD, GATE_CHECK_DEVICE_STATE};
	enum gate_phase phase;
	size_t i;

	(void)state;
	for (i = 0; i < DIM(requests); i++) {
		for (phase = NEW; phase <= RUNNING; phase++) {
			begin();
			come_to(phase, GF_FEATURES);
			assert_string_equal(say(gf_message(requests[i],
						    gate_proto(requests[i])->size_min), 0),
				"not offered");
		}
	}
}

static void
before_its_time(void **state)
{
	const struct rule rules[] = {
		{NEW, "it comes before features", gf_table(1), 1, MEM},
		{NEW, "it comes before features", gf_log(0x100000, 0), 1, MEM},
		{NEW, "it comes before features", gf_inflight(GATE_GET_INFLIGHT_FD, 0, 0, 2, 64),
			NO_FDS},
		{NEW, "it comes before features",
			gf_inflight(GATE_SET_INFLIGHT_FD, 0x10000, 0, 2, 64), 1, MEM},
		{NEW, "it comes before features", gf_addr(0, GF_UVA), NO_FDS},
		{NEW, "it comes before features", U64(GATE_SET_VRING_KICK, 0), 1, EVENT},
		{NEW, "it comes before features", gf_slot(GATE_ADD_MEM_REG, 0), 1, MEM},
		{FEATURES, "it comes before memory", gf_addr(0, GF_UVA), NO_FDS},
		{FEATURES, "it comes before memory", U64(GATE_SET_VRING_KICK, 0), 1, EVENT},
		/* As stock front-ends do. */
		{NEW, NULL, U64(GATE_SET_VRING_CALL, 0), 1, EVENT},
		{NEW, NULL, U64(GATE_SET_VRING_ERR, 0), 1, EVENT},
		{NEW, NULL, STATE(GATE_SET_VRING_ENABLE, 0, 1), NO_FDS},
		{NEW, NULL, STATE(GATE_GET_VRING_BASE, 0, 0), NO_FDS},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
features(void **state)
{
	const struct rule rules[] = {
		{NEW, "features that were not offered", U64(2, GF_FEATURES | 1), NO_FDS},
		{NEW, NULL, U64(2, GF_OFFER), NO_FDS},
		{NEW, "protocol features that were not offered", U64(16, GF_PROTOCOL | 1 << 8),
			NO_FDS},
		{NEW, NULL, U64(16, 0), NO_FDS},
		{RUNNING, "other features while a ring is running",
			U64(2, GF_FEATURES | GF_BIT(GATE_F_EVENT_IDX)), NO_FDS},
		{RUNNING, NULL, U64(2, GF_FEATURES), NO_FDS},
		{RUNNING, NULL, U64(2, GF_FEATURES | GF_BIT(GATE_F_LOG_ALL)), NO_FDS},
		{RUNNING, "other protocol features while a ring is running", U64(16, 0), NO_FDS},
		{RUNNING, NULL, U64(16, GF_PROTOCOL), NO_FDS},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
tables(void **state)
{
	const uint64_t top = -(uint64_t)GF_SIZE_2;
	const struct rule rules[] = {
		{FEATURES, NULL, gf_table(1), 1, MEM},
		{FEATURES, NULL, gf_table(8), 8, MEM},
		{FEATURES, NULL, with_size(gf_table(1), 72), 1, MEM}, /* user-mode Linux */
		{FEATURES, "a number of regions out of range", with_size(gf_table(9), 264), 8, MEM},
		{FEATURES, "fewer regions than it says", with_size(gf_table(2), 40), 2, MEM},
		{FEATURES, FD_COUNT, gf_table(2), 1, MEM},
		{FEATURES, FD_COUNT, gf_table(2), 3, MEM},
		{FEATURES, FD_COUNT, gf_table(1), 0, MEM},
		{FEATURES, "memory that is no file on a file system that is trusted", gf_table(1),
			1, GATE_FD_OTHER},
		{FEATURES, "memory that is no file on a file system that is trusted", gf_table(1),
			1, EVENT},
		{FEATURES, "an empty region", with_region(GF_GPA_2, 0, GF_UVA_2, 0), 2, MEM},
		{FEATURES, WRAPS, with_region(top + 4096, GF_SIZE_2, GF_UVA_2, 0), 2, MEM},
		{FEATURES, NULL, with_region(top, GF_SIZE_2, GF_UVA_2, 0), 2, MEM},
		{FEATURES, WRAPS, with_region(GF_GPA_2, GF_SIZE_2, top + 4096, 0), 2, MEM},
		{FEATURES, WRAPS, with_region(GF_GPA_2, 0x1000, GF_UVA_2, (uint64_t)-0x1000), 2, MEM},
		{FEATURES, WRAPS, with_region(GF_GPA_2, UINT64_MAX, GF_UVA_2, 0), 2, MEM},
		{FEATURES, "a region longer than its file",
			with_region(GF_GPA_2, GF_SIZE_2, GF_UVA_2, 0x1000), 2, MEM},
		{FEATURES, NULL, with_region(GF_GPA_2, GF_SIZE_2 - 0x1000, GF_UVA_2, 0x1000), 2,
			MEM},
		{FEATURES, "an offset that is not aligned",
			with_region(GF_GPA_2, 0x1000, GF_UVA_2, 0x800), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA + GF_SIZE - 1, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA - 0xfff, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, NULL, with_region(GF_GPA - 0x1000, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, NULL, with_region(GF_GPA + GF_SIZE, 0x1000, GF_UVA_2, 0), 2, MEM},
		{FEATURES, OVERLAP, with_region(GF_GPA_2, 0x1000, END - 1, 0), 2, MEM},
		/* The rings of a running device are in the first region. */
		{RUNNING, NULL, gf_table(1), 1, MEM},
		{RUNNING, NULL, gf_table(3), 3, MEM},
	};
	struct gate_message m;

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);

	begin();
	come_to(RUNNING, GF_FEATURES);
	m = gf_table(1);
	m.payload.table.regions[0].uva += 0x1000;
	assert_string_equal(say(m, 1), "its descriptors are not in one region");
	m = gf_table(1);
	m.payload.table.regions[0].size = GF_RING + 0x8000;
	assert_string_equal(say(m, 1), "its device area is not in one region");
	m.payload.table.regions[0].size = GF_RING + 0x8000 + 4 + 8 * GF_NUM;
	must(m, 1);

	/* Address space counts from the start of the file, in its own blocks. */
	begin();
	come_to(FEATURES, GF_FEATURES);
	offer.space_max = GF_SIZE + GF_SIZE_2;
	must(gf_table(2), 2);
	fds[1].block = GF_SIZE_2 * 2;
	assert_string_equal(say(gf_table(2), 2), "more address space than a connection may take");
	fds[1].block = 4096;
	offer.space_max--;
	assert_string_equal(say(gf_table(2), 2), "more address space than a connection may take");
}

/* Where just everything ends: n entries of 16, avail and used behind them. */
static void
ring_places(void **state)
{
	const uint64_t avail = 4 + 2 * GF_NUM, used = 4 + 8 * GF_NUM, desc = 16 * GF_NUM;
	const uint64_t a = GF_UVA + 0x20000, b = GF_UVA + 0x30000;
	const struct rule split[] = {
		{MEMORY, NULL, with_addr(0, GF_UVA, a, b, 0, 0), NO_FDS},
		{MEMORY, NULL, with_addr(0, END - 16, a, b, 0, 0), NO_FDS}, /* no size yet */
		{RUNNING, NULL, with_addr(0, END - desc, a, b, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, END - desc + 16, a, b, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, GF_UVA - 16, a, b, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, UINT64_MAX - 15, a, b, 0, 0), NO_FDS},
		{RUNNING, NULL, with_addr(0, GF_UVA, END - avail, b, 0, 0), NO_FDS},
		{RUNNING, "its driver area is not in one region",
			with_addr(0, GF_UVA, END - avail + 2, b, 0, 0), NO_FDS},
		{RUNNING, NULL, with_addr(0, GF_UVA, a, END - used, 0, 0), NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - used + 4, 0, 0), NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - 2, 0, 0), NO_FDS},
		{RUNNING, "an area of it is not aligned",
			with_addr(0, GF_UVA + 8, a, b, 0, 0), NO_FDS},
		{RUNNING, "an area of it is not aligned",
			with_addr(0, GF_UVA, a + 1, b, 0, 0), NO_FDS},
		{RUNNING, "an area of it is not aligned",
			with_addr(0, GF_UVA, a, b + 2, 0, 0), NO_FDS},
		{RUNNING, "unknown flags", with_addr(0, GF_UVA, a, b, 2, 0), NO_FDS},
		{RUNNING, "there is no such ring", with_addr(256, GF_UVA, a, b, 0, 0), NO_FDS},
	};
	const struct rule packed[] = {
		{RUNNING, NULL, with_addr(0, GF_UVA, END - 4, b, 0, 0), NO_FDS},
		{RUNNING, NULL, with_addr(0, GF_UVA, a, END - 4, 0, 0), NO_FDS},
		{RUNNING, "its driver area is not in one region",
			with_addr(0, GF_UVA, END, b, 0, 0), NO_FDS},
		{RUNNING, "an area of it is not aligned",
			with_addr(0, GF_UVA, a + 2, b, 0, 0), NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - 3, 0, 0), NO_FDS},
		{RUNNING, "its descriptors are not in one region",
			with_addr(0, END - desc + 16, a, b, 0, 0), NO_FDS},
	};
	/* One word more in either area. */
	const struct rule event_idx[] = {
		{RUNNING, NULL, with_addr(0, GF_UVA, END - avail - 2, b, 0, 0), NO_FDS},
		{RUNNING, "its driver area is not in one region",
			with_addr(0, GF_UVA, END - avail, b, 0, 0), NO_FDS},
		{RUNNING, "its device area is not in one region",
			with_addr(0, GF_UVA, a, END - used, 0, 0), NO_FDS},
	};

	(void)state;
	check(split, DIM(split), GF_FEATURES);
	check(packed, DIM(packed), GF_FEATURES | GF_BIT(GATE_F_RING_PACKED));
	check(event_idx, DIM(event_idx), GF_FEATURES | GF_BIT(GATE_F_EVENT_IDX));
}

static void
ring_sizes(void **state)
{
	const struct rule split[] = {
		{FEATURES, "a size out of range", STATE(GATE_SET_VRING_NUM, 0, 0), NO_FDS},
		{FEATURES, "a size out of range", STATE(GATE_SET_VRING_NUM, 0, 65536), NO_FDS},
		{FEATURES, "its size is no power of two", STATE(GATE_SET_VRING_NUM, 0, 3), NO_FDS},
		{FEATURES, NULL, STATE(GATE_SET_VRING_NUM, 0, 1), NO_FDS},
		{FEATURES, NULL, STATE(GATE_SET_VRING_NUM, 0, 32768), NO_FDS},
		{FEATURES, "there is no such ring", STATE(GATE_SET_VRING_NUM, 256, 64), NO_FDS},
		{FEATURES, "there is no such ring", STATE(GATE_SET_VRING_NUM, UINT32_MAX, 64),
			NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_NUM, 1, 32), NO_FDS},
		{FEATURES, "its position is no index", STATE(GATE_SET_VRING_BASE, 0, 65536), NO_FDS},
		{FEATURES, NULL, STATE(GATE_SET_VRING_BASE, 0, 65535), NO_FDS},
		{RUNNING, "neither on nor off", STATE(GATE_SET_VRING_ENABLE, 0, 2), NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_ENABLE, 0, 0), NO_FDS},
	};
	const struct rule packed[] = {
		{FEATURES, NULL, STATE(GATE_SET_VRING_NUM, 0, 3), NO_FDS},
		{FEATURES, "a size out of range", STATE(GATE_SET_VRING_NUM, 0, 32769), NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_BASE, 0, 0x8000 | (GF_NUM - 1)), NO_FDS},
		{RUNNING, "its position is not in the ring",
			STATE(GATE_SET_VRING_BASE, 0, 0x8000 | GF_NUM), NO_FDS},
		{RUNNING, NULL, STATE(GATE_SET_VRING_BASE, 0, 0x80ff80ff), NO_FDS},
		{RUNNING, "its position is not in the ring",
			STATE(GATE_SET_VRING_BASE, 0, 0x810080ff), NO_FDS},
	};

	(void)state;
	check(split, DIM(split), GF_FEATURES);
	check(packed, DIM(packed), GF_FEATURES | GF_BIT(GATE_F_RING_PACKED));

	begin();
	come_to(RUNNING, GF_FEATURES);
	must(with_addr(1, GF_UVA, GF_UVA + 0x4000, END - 4 - 8 * GF_NUM, 0, 0), 0);
	assert_string_equal(say(STATE(GATE_SET_VRING_NUM, 1, 2 * GF_NUM), 0),
		"its device area is not in one region");
	/* The same of a ring that has stopped: it has no addresses any more. */
	must(STATE(GATE_GET_VRING_BASE, 1, 0), 0);
	must(STATE(GATE_SET_VRING_NUM, 1, 2 * GF_NUM), 0);
	assert_string_equal(say(U64(GATE_SET_VRING_KICK, 1 | GATE_NO_FD), 0),
		"its addresses were not set");
}

static void
ring_files(void **state)
{
	static const uint32_t files[] = {
		GATE_SET_VRING_KICK, GATE_SET_VRING_CALL, GATE_SET_VRING_ERR};
	size_t i;

	(void)state;
	for (i = 0; i < DIM(files); i++) {
		const struct rule rules[] = {
			{RUNNING, NULL, U64(files[i], 1), 1, EVENT},
			{RUNNING, NULL, U64(files[i], 1), 1, GATE_FD_PIPE},
			{RUNNING, NULL, U64(files[i], 1 | GATE_NO_FD), NO_FDS},
			{RUNNING, FD_COUNT, U64(files[i], 1), NO_FDS},
			{RUNNING, FD_COUNT, U64(files[i], 1), 2, EVENT},
			{RUNNING, FD_COUNT, U64(files[i], 1 | GATE_NO_FD), 1, EVENT},
			{RUNNING, "unknown bits", U64(files[i], 1 | 0x200), 1, EVENT},
			{RUNNING, "unknown bits", U64(files[i], GF_BIT(63)), 1, EVENT},
			{RUNNING, "its descriptor is no eventfd", U64(files[i], 1), 1, MEM},
			{RUNNING, "its descriptor is no eventfd", U64(files[i], 1), 1,
				GATE_FD_SOCKET},
			{RUNNING, "its descriptor is no eventfd", U64(files[i], 1), 1,
				GATE_FD_OTHER},
		};

		check(rules, DIM(rules), GF_FEATURES);
	}
}

static void
kick_needs_a_whole_ring(void **state)
{
	(void)state;
	begin();
	come_to(MEMORY, GF_FEATURES);
	fds[0].kind = EVENT;
	assert_string_equal(say(U64(GATE_SET_VRING_KICK, 0), 1), "its size was not set");
	must(STATE(GATE_SET_VRING_NUM, 0, GF_NUM), 0);
	assert_string_equal(say(U64(GATE_SET_VRING_KICK, 0), 1), "its addresses were not set");
	must(gf_addr(0, GF_UVA), 0);
	must(U64(GATE_SET_VRING_KICK, 0), 1);
	assert_int_equal(gate_phase(&conn), RUNNING);
	must(U64(GATE_SET_VRING_KICK, 0), 1);
	assert_int_equal(conn.nb_started, 1);
	must(STATE(GATE_GET_VRING_BASE, 0, 0), 0);
	must(STATE(GATE_GET_VRING_BASE, 0, 0), 0);
	assert_int_equal(conn.nb_started, 0);

	/* What was right as a split ring may not be as a packed one, and the other way. */
	begin();
	come_to(FEATURES, GF_FEATURES | GF_BIT(GATE_F_RING_PACKED));
	must(gf_table(2), 2);
	must(STATE(GATE_SET_VRING_NUM, 0, 5), 0);
	must(with_addr(0, GF_UVA, GF_UVA + 0x1000, END - 4, 0, 0), 0);
	assert_string_equal(say(U64(GATE_SET_FEATURES, GF_FEATURES), 0),
		"its size is no power of two");
	must(STATE(GATE_SET_VRING_NUM, 0, 4), 0);
	assert_string_equal(say(U64(GATE_SET_FEATURES, GF_FEATURES), 0),
		"its device area is not in one region");
}

static void
absent_rings(void **state)
{
	static const uint32_t requests[] = {GATE_SET_VRING_NUM, GATE_SET_VRING_BASE,
		GATE_SET_VRING_ENABLE};
	size_t i;

	(void)state;
	begin();
	come_to(RUNNING, GF_FEATURES);
	for (i = 0; i < DIM(requests); i++) {
		must(STATE(requests[i], 4, 77), 0);
		assert_int_equal(j.verdict, GATE_ANSWER);
		assert_true(j.acked);
	}
	must(gf_addr(255, 0), 0);
	assert_int_equal(j.verdict, GATE_ANSWER);
	fds[0].kind = EVENT;
	must(U64(GATE_SET_VRING_KICK, 4), 1);
	assert_int_equal(j.verdict, GATE_ANSWER);
	must(STATE(GATE_GET_VRING_BASE, 4, 0), 0);
	assert_int_equal(j.verdict, GATE_ANSWER);
	assert_true(j.answered);
	assert_int_equal(j.out.payload.state.index, 4);
	assert_int_equal(j.out.payload.state.num, 77);
	must(STATE(GATE_SET_VRING_NUM, 3, 64), 0);
	assert_int_equal(j.verdict, GATE_PASS);
}

/* 0x108 KiB cover the two regions: the second one ends at 0x100800000. */
#define COVERS (0x100800000 / 4096 / 8)

static void
dirty_log(void **state)
{
	const struct rule rules[] = {
		{RUNNING, NULL, gf_log(COVERS, 0), 1, MEM},
		{RUNNING, NULL, gf_log(COVERS, 0x1000), 1, MEM},
		{RUNNING, "a log that does not cover the memory", gf_log(COVERS - 1, 0), 1, MEM},
		{RUNNING, "a size out of range", gf_log(0, 0), 1, MEM},
		{RUNNING, "a size out of range", gf_log((1 << 20) + 1, 0), 1, MEM},
		{RUNNING, "an offset out of range or not aligned", gf_log(COVERS, 8), 1, MEM},
		{RUNNING, "an offset out of range or not aligned",
			gf_log(COVERS, (uint64_t)-0x1000), 1, MEM},
		{RUNNING, "a log longer than its file", gf_log(COVERS, GF_SIZE_2 - 0x1000), 1, MEM},
		{RUNNING, "a log that is no file on a file system that is trusted",
			gf_log(COVERS, 0), 1, GATE_FD_OTHER},
		{RUNNING, FD_COUNT, gf_log(COVERS, 0), 0, MEM},
		{RUNNING, FD_COUNT, gf_log(COVERS, 0), 2, MEM},
		{RUNNING, NULL, gf_empty(GATE_SET_LOG_FD), 1, EVENT},
	};
	const uint64_t on = GF_FEATURES | GF_BIT(GATE_F_LOG_ALL), far = UINT64_C(8) * 4096 * COVERS;
	const uint64_t used = 4 + 8 * GF_NUM;
	struct gate_message m;

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);

	/* Against the log address, whichever comes first. */
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(gf_log(COVERS, 0), 1);
	m = gf_addr(0, GF_UVA);
	m.payload.addr.flags = 1;
	m.payload.addr.log = far - used;
	must(m, 0);
	m.payload.addr.log = far - used + 1;
	assert_string_equal(say(m, 0), "its log address is outside the dirty log");
	m.payload.addr.log = UINT64_MAX - 2;
	assert_string_equal(say(m, 0), "its log address is outside the dirty log");
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(m, 0);
	assert_string_equal(
		say(gf_log(COVERS, 0), 1), "its log address is outside the dirty log");

	/* Against the table and LOG_ALL. */
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(gf_log(COVERS, 0), 1);
	must(gf_table(3), 3);
	assert_string_equal(say(U64(GATE_SET_FEATURES, on), 0),
		"the dirty log does not cover the memory");
	must(gf_table(2), 2);
	must(U64(GATE_SET_FEATURES, on), 0);
	assert_string_equal(say(gf_table(3), 3), "memory that the dirty log does not cover");
	must(U64(GATE_SET_FEATURES, GF_FEATURES), 0);
	must(gf_table(3), 3);
}

static void
inflight(void **state)
{
	const uint64_t least = 2 * (16 * 64 + 16);
	const struct rule rules[] = {
		{FEATURES, NULL, gf_inflight(31, 0, 0, 4, 64), NO_FDS},
		{FEATURES, NULL, with_size(gf_inflight(31, 0, 0, 4, 64), 20), NO_FDS},
		{FEATURES, "more queues than there are, or none", gf_inflight(31, 0, 0, 5, 64),
			NO_FDS},
		{FEATURES, "more queues than there are, or none", gf_inflight(31, 0, 0, 0, 64),
			NO_FDS},
		{FEATURES, "a queue size out of range", gf_inflight(31, 0, 0, 2, 0), NO_FDS},
		{FEATURES, "a queue size out of range", gf_inflight(31, 0, 0, 2, 32769), NO_FDS},
		{FEATURES, "more memory than a connection may take",
			gf_inflight(31, 0, 0, 4, 32768), NO_FDS},
		{FEATURES, NULL, gf_inflight(32, least, 0, 2, 64), 1, MEM},
		{FEATURES, "a size that its queues don't take",
			gf_inflight(32, least - 1, 0, 2, 64), 1, MEM},
		{FEATURES, "a size that its queues don't take",
			gf_inflight(32, (1 << 20) + 1, 0, 2, 64), 1, MEM},
		{FEATURES, "an offset out of range or not aligned",
			gf_inflight(32, least, 64, 2, 64), 1, MEM},
		{FEATURES, "an offset out of range or not aligned",
			gf_inflight(32, 0x2000, (uint64_t)-0x1000, 2, 64), 1, MEM},
		{FEATURES, "a region longer than its file",
			gf_inflight(32, least, GF_SIZE_2, 2, 64), 1, MEM},
		{FEATURES, "a region that is no file on a file system that is trusted",
			gf_inflight(32, least, 0, 2, 64), 1, GATE_FD_OTHER},
		{FEATURES, FD_COUNT, gf_inflight(32, least, 0, 2, 64), 0, MEM},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
others(void **state)
{
	const struct rule rules[] = {
		{RUNNING, NULL, gf_config(24, 0, 256, 0), NO_FDS},
		{RUNNING, NULL, gf_config(24, 255, 1, 0), NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, 0, 257, 0), NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, 255, 2, 0), NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, UINT32_MAX, 2, 0),
			NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, 2, UINT32_MAX, 0),
			NO_FDS},
		{RUNNING, "fewer bytes than it says", with_size(gf_config(24, 0, 9, 0), 20), NO_FDS},
		{RUNNING, NULL, with_size(gf_config(24, 0, 8, 0), 20), NO_FDS},
		{RUNNING, NULL, gf_config(25, 0, 8, 1), NO_FDS},
		{RUNNING, "unknown flags", gf_config(25, 0, 8, 2), NO_FDS},
		{NEW, "an MTU out of range", U64(GATE_NET_SET_MTU, 67), NO_FDS},
		{NEW, NULL, U64(GATE_NET_SET_MTU, 68), NO_FDS},
		{NEW, "an MTU out of range", U64(GATE_NET_SET_MTU, 65536), NO_FDS},
		{NEW, NULL, U64(GATE_SET_STATUS, 255), NO_FDS},
		{NEW, "a status of more than 8 bits", U64(GATE_SET_STATUS, 256), NO_FDS},
		{NEW, NULL, gf_empty(GATE_SET_BACKEND_REQ_FD), 1, GATE_FD_SOCKET},
		{NEW, "its descriptor is no socket", U64(GATE_SET_BACKEND_REQ_FD, 0), 1, EVENT},
		{NEW, FD_COUNT, U64(GATE_SET_BACKEND_REQ_FD, 0), NO_FDS},
		{NEW, "it comes before features", U64(GATE_SEND_RARP, 0), NO_FDS},
		{RUNNING, NULL, U64(GATE_SEND_RARP, 0), NO_FDS},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
protocol_features_have_to_be_negotiated(void **state)
{
	uint32_t r;

	(void)state;
	for (r = 0; r < GATE_NB_REQUESTS; r++) {
		const struct gate_proto *row = gate_proto(r);
		unsigned int n;

		if (row == NULL || row->feature == GATE_PF_NONE ||
			row->fate == GATE_FATE_REFUSED)
			continue;
		begin();
		come_to(RUNNING, GF_FEATURES);
		must(STATE(GATE_GET_VRING_BASE, 0, 0), 0);
		must(STATE(GATE_GET_VRING_BASE, 1, 0), 0);
		must(U64(GATE_SET_PROTOCOL_FEATURES, GF_PROTOCOL & ~GF_BIT(row->feature)), 0);
		n = row->fds_min;
		assert_string_equal(say(gf_message(r, row->size_max), n),
			"its protocol feature was not negotiated");
	}
}

static void
regions_one_by_one(void **state)
{
	unsigned int i;

	(void)state;
	begin();
	come_to(FEATURES, GF_FEATURES);
	assert_int_equal(j.out.payload.u64 & GF_BIT(GATE_PF_CONFIGURE_MEM_SLOTS), 0);
	for (i = 0; i < GATE_MAX_REGIONS; i++) {
		fds[0].fd = 200 + i;
		must(gf_slot(GATE_ADD_MEM_REG, i), 1);
		assert_int_equal(j.out.request, GATE_SET_MEM_TABLE);
		assert_int_equal(j.out.payload.table.nb_regions, i + 1);
		assert_int_equal(j.nb_fds, i + 1);
		assert_int_equal(j.fds[i], 200 + i);
		assert_int_equal(j.out.size, 8 + 32 * (i + 1));
	}
	assert_string_equal(
		say(gf_slot(GATE_ADD_MEM_REG, 0), 1), "more regions than there are slots");
	must(gf_slot(GATE_REM_MEM_REG, 3), 0);
	assert_int_equal(j.nb_fds, 7);
	assert_int_equal(j.fds[3], 204);
	assert_string_equal(say(gf_slot(GATE_REM_MEM_REG, 3), 0), "a region that is not there");
	assert_string_equal(say(gf_slot(GATE_ADD_MEM_REG, 2), 1), OVERLAP);
	start_ring(0);
	assert_string_equal(say(gf_slot(GATE_REM_MEM_REG, 0), 0),
		"its descriptors are not in one region");
	must(gf_empty(GATE_GET_MAX_MEM_SLOTS), 0);
	assert_int_equal(j.out.payload.u64, GATE_MAX_REGIONS);
}

static void
owner_reset_forgets_everything(void **state)
{
	static const struct gate_state nothing;

	(void)state;
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(gf_log(COVERS, 0), 1);
	must(gf_empty(GATE_RESET_OWNER), 0);
	assert_true(j.acked); /* by what was negotiated when it came */
	assert_memory_equal(&conn, &nothing, sizeof(conn));
}

static void
refusals_are_said_if_they_can_be(void **state)
{
	struct gate_message m = U64(GATE_SET_FEATURES, GF_BIT(63));

	(void)state;
	begin();
	say(m, 0);
	assert_int_equal(j.verdict, GATE_HANG_UP); /* nothing negotiated */
	come_to(NEW, 0);
	say(m, 0);
	assert_int_equal(j.verdict, GATE_REFUSE);
	m.flags = GATE_VERSION;
	say(m, 0);
	assert_int_equal(j.verdict, GATE_HANG_UP); /* not asked */
}

static void
certain_ones_only_before_it_is_live(void **state)
{
	(void)state;
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(STATE(GATE_SET_VRING_ENABLE, 0, 1), 0);
	assert_true(j.certain);
	must(U64(GATE_SET_STATUS, 0xf), 0);
	assert_true(j.certain);
	must(STATE(GATE_SET_VRING_ENABLE, 0, 0), 0);
	assert_false(j.certain);
	must(U64(GATE_SET_STATUS, 0), 0);
	assert_false(j.certain);
	must(gf_table(3), 3);
	assert_true(j.certain); /* the driver has taken DRIVER_OK back */
	must(U64(GATE_SET_STATUS, 0xf), 0);
	must(gf_table(2), 2);
	assert_false(j.certain);
	must(gf_empty(GATE_GET_FEATURES), 0);
	assert_false(j.certain);
}

static void
back_channel(void **state)
{
	struct gate_message m = gf_message(GATE_BACK_VRING_HOST_NOTIFIER, 24);

	(void)state;
	assert_null(gate_judge_back(&m, 1));
	assert_non_null(gate_judge_back(&m, 0));
	assert_non_null(gate_judge_back(&m, 2));
	m.payload.u64 = GATE_NO_FD;
	assert_null(gate_judge_back(&m, 0));
	assert_non_null(gate_judge_back(&m, 1));
	m.size = 16;
	assert_non_null(gate_judge_back(&m, 0));
	m = gf_empty(GATE_BACK_CONFIG_CHANGE);
	assert_null(gate_judge_back(&m, 0));
	assert_non_null(gate_judge_back(&m, 1));
	m = gf_message(1, 32); /* IOTLB */
	assert_non_null(gate_judge_back(&m, 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers),
		cmocka_unit_test(not_offered),
		cmocka_unit_test(before_its_time),
		cmocka_unit_test(features),
		cmocka_unit_test(tables),
		cmocka_unit_test(ring_places),
		cmocka_unit_test(ring_sizes),
		cmocka_unit_test(ring_files),
		cmocka_unit_test(kick_needs_a_whole_ring),
		cmocka_unit_test(absent_rings),
		cmocka_unit_test(dirty_log),
		cmocka_unit_test(inflight),
		cmocka_unit_test(others),
		cmocka_unit_test(protocol_features_have_to_be_negotiated),
		cmocka_unit_test(regions_one_by_one),
		cmocka_unit_test(owner_reset_forgets_everything),
		cmocka_unit_test(refusals_are_said_if_they_can_be),
		cmocka_unit_test(certain_ones_only_before_it_is_live),
		cmocka_unit_test(back_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
