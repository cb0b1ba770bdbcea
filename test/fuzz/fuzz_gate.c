/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Fuzzer of the gate's judge: sequences of messages with facts of their descriptors, and after each
 * a second opinion on the state that was accepted, with wider arithmetic and without any of the
 * judge's code. Any one thread.
 */

#include <string.h>

#include "../unit/gate_frontend.h"
#include "fuzz_gate.h"

typedef unsigned __int128 wide;

static struct gate_offer offer;
static struct gate_state conn, before;

uint64_t
gate_fuzz_value(const struct gate_fuzz_value *v)
{
	static const uint64_t base[GATE_V_MAX] = {
		[GATE_V_PAGE] = 0x1000,
		[GATE_V_2M] = GF_SIZE,
		[GATE_V_4G] = GF_GPA_2,
		[GATE_V_1T] = UINT64_C(1) << 40,
		[GATE_V_2_63] = UINT64_C(1) << 63,
		[GATE_V_TOP] = UINT64_MAX,
		[GATE_V_UVA] = GF_UVA,
		[GATE_V_UVA_2] = GF_UVA_2,
		[GATE_V_UVA_END] = GF_UVA + GF_SIZE,
		[GATE_V_FEATURES] = GF_FEATURES,
		[GATE_V_PACKED] = GF_FEATURES | GF_BIT(GATE_F_RING_PACKED),
		[GATE_V_LOGGED] = GF_FEATURES | GF_BIT(GATE_F_LOG_ALL),
		[GATE_V_PROTOCOL] = GF_PROTOCOL,
		[GATE_V_256] = 256,
		[GATE_V_32768] = 32768,
		[GATE_V_PLATFORM] = GF_FEATURES | GF_BIT(GATE_F_ACCESS_PLATFORM),
	};

	return base[v->base % GATE_V_MAX] + ((uint64_t)(int64_t)v->add << v->shift % 48);
}

static uint64_t
value(const struct gate_fuzz_message *r, unsigned int i)
{
	return gate_fuzz_value(&r->value[i % GATE_FUZZ_VALUES]);
}

static struct gate_wire_region
region(const struct gate_fuzz_message *r, unsigned int i)
{
	const uint64_t far = (uint64_t)(i / 3) << 44; /* those behind the third are elsewhere */

	return (struct gate_wire_region){value(r, 4 * (i % 3)) + far, value(r, 4 * (i % 3) + 1),
		value(r, 4 * (i % 3) + 2) + far, value(r, 4 * (i % 3) + 3)};
}

static void
fill(struct gate_message *m, const struct gate_fuzz_message *r, unsigned int nb_fds)
{
	union gate_payload *p = &m->payload;
	unsigned int i;

	switch (m->request) {
	case GATE_SET_MEM_TABLE:
		p->table.nb_regions = (r->flags & GATE_FUZZ_SIZE) != 0 ? value(r, 0) : nb_fds;
		for (i = 0; i < GATE_MAX_REGIONS; i++)
			p->table.regions[i] = region(r, i);
		m->size = 8 + 32 * nb_fds;
		break;
	case GATE_ADD_MEM_REG:
	case GATE_REM_MEM_REG:
		p->slot.region = region(r, 0);
		break;
	case GATE_SET_VRING_ADDR:
		p->addr.index = value(r, 0);
		p->addr.flags = value(r, 1);
		p->addr.desc = value(r, 2);
		p->addr.avail = value(r, 3);
		p->addr.used = value(r, 4);
		p->addr.log = value(r, 5);
		break;
	case GATE_SET_VRING_NUM:
	case GATE_SET_VRING_BASE:
	case GATE_GET_VRING_BASE:
	case GATE_SET_VRING_ENABLE:
		p->state.index = value(r, 0);
		p->state.num = value(r, 1);
		break;
	case GATE_SET_LOG_BASE:
		p->log.size = value(r, 0);
		p->log.offset = value(r, 1);
		break;
	case GATE_GET_INFLIGHT_FD:
	case GATE_SET_INFLIGHT_FD:
		p->inflight.size = value(r, 0);
		p->inflight.offset = value(r, 1);
		p->inflight.queues = value(r, 2);
		p->inflight.queue_size = value(r, 3);
		break;
	case GATE_GET_CONFIG:
	case GATE_SET_CONFIG:
		p->config.offset = value(r, 0);
		p->config.size = value(r, 1);
		p->config.flags = value(r, 2);
		break;
	case GATE_IOTLB_MSG:
		p->iotlb.iova = value(r, 0);
		p->iotlb.size = value(r, 1);
		p->iotlb.uva = value(r, 2);
		p->iotlb.perm = value(r, 3);
		p->iotlb.type = value(r, 4);
		break;
	default:
		p->u64 = value(r, 0);
		break;
	}
}

/* ---- what has to hold ---- */

static bool
inside(uint64_t at, wide size)
{
	unsigned int i;

	for (i = 0; i < conn.nb_regions; i++) {
		const struct gate_wire_region *w = &conn.regions[i].wire;

		if (at >= w->uva && (wide)at + size <= (wide)w->uva + w->size)
			return true;
	}
	return false;
}

/* The same over several regions, which are apart. */
static bool
covered(uint64_t at, wide size)
{
	wide bytes = 0;
	unsigned int i;

	for (i = 0; i < conn.nb_regions; i++) {
		const struct gate_wire_region *w = &conn.regions[i].wire;
		const wide from = at > w->uva ? at : w->uva;
		const wide end = (wide)at + size < (wide)w->uva + w->size ? (wide)at + size :
									    (wide)w->uva + w->size;

		bytes += end > from ? end - from : 0;
	}
	return bytes == size;
}

static bool
apart(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return (wide)a + a_size <= b || (wide)b + b_size <= a;
}

static void
check_table(void)
{
	wide space = 0;
	unsigned int i, k;

	CHECK(conn.nb_regions <= GATE_MAX_REGIONS);
	for (i = 0; i < conn.nb_regions; i++) {
		const struct gate_wire_region *w = &conn.regions[i].wire;

		CHECK(w->size > 0);
		CHECK((wide)w->gpa + w->size <= (wide)1 << 64);
		CHECK((wide)w->uva + w->size <= (wide)1 << 64);
		CHECK((wide)w->offset + w->size <= conn.regions[i].file.size);
		CHECK(conn.regions[i].file.kind == GATE_FD_MEMORY);
		CHECK(w->offset % 4096 == 0);
		space += (wide)w->offset + w->size;
		for (k = 0; k < i; k++) {
			const struct gate_wire_region *o = &conn.regions[k].wire;

			CHECK(apart(w->gpa, w->size, o->gpa, o->size));
			CHECK(apart(w->uva, w->size, o->uva, o->size));
		}
		if ((conn.features >> GATE_F_LOG_ALL & 1) != 0 && conn.log_size > 0)
			CHECK((wide)w->gpa + w->size <= (wide)conn.log_size * 8 * 4096);
	}
	CHECK(space <= offer.space_max);
	CHECK(conn.space >= space && conn.space <= offer.space_max);
}

static void
check_ring(const struct gate_ring_state *r)
{
	const bool packed = (conn.features >> GATE_F_RING_PACKED & 1) != 0;
	const wide n = r->num, event = conn.features >> GATE_F_EVENT_IDX & 1;

	if (r->started) {
		CHECK(r->has_addr);
		CHECK(n > 0);
	}
	if (!r->has_addr)
		return;
	CHECK(n <= 32768);
	CHECK(packed || (n & (n - 1)) == 0);
	/* What is translated may lead anywhere, for now. */
	if ((conn.features >> GATE_F_ACCESS_PLATFORM & 1) != 0)
		return;
	CHECK(inside(r->desc, 16 * (n > 0 ? n : 1)));
	CHECK(inside(r->avail, packed ? 4 : 4 + 2 * n + 2 * event));
	CHECK(inside(r->used, packed ? 4 : 4 + 8 * n + 2 * event));
	if (n > 0 && packed)
		CHECK((r->base & 0x7fff) < n);
	if ((r->flags & 1) != 0 && conn.log_size > 0)
		CHECK((wide)r->log + (packed ? 4 : 4 + 8 * n) <= (wide)conn.log_size * 8 * 4096);
}

static void
check_state(void)
{
	unsigned int i, started = 0;

	CHECK((conn.features & ~offer.features) == 0);
	CHECK((conn.protocol_features & ~offer.protocol_features) == 0);
	CHECK(conn.has_features || (conn.nb_regions == 0 && conn.log_size == 0));
	CHECK(conn.log_size <= offer.log_max);
	check_table();
	for (i = 0; i < GATE_MAX_RINGS; i++) {
		started += conn.rings[i].started;
		if (i >= offer.rings)
			CHECK(!conn.rings[i].started && !conn.rings[i].has_addr);
		else
			check_ring(&conn.rings[i]);
	}
	CHECK(started == conn.nb_started);
}

static void
check_pass(const struct gate_message *m, const struct gate_judgement *j, unsigned int nb_fds)
{
	const struct gate_proto *row = gate_proto(j->out.request);
	unsigned int i;

	CHECK(row != NULL && gate_proto(m->request)->fate == GATE_FATE_PASSED);
	CHECK(j->out.size <= GATE_PAYLOAD_MAX);
	CHECK(j->nb_fds <= GATE_MAX_FDS);
	CHECK(j->ring < (int)offer.rings);
	if (j->out.request == GATE_SET_MEM_TABLE) {
		CHECK(j->out.payload.table.nb_regions == conn.nb_regions);
		CHECK(j->nb_fds == conn.nb_regions);
		CHECK(j->out.size == 8 + 32u * conn.nb_regions);
		for (i = 0; i < conn.nb_regions; i++)
			CHECK(memcmp(&j->out.payload.table.regions[i], &conn.regions[i].wire,
				      sizeof(conn.regions[i].wire)) == 0);
	} else {
		CHECK(j->nb_fds == nb_fds);
	}
	if (m->request == GATE_IOTLB_MSG) {
		const wide size = m->payload.iotlb.size;

		CHECK((conn.features >> GATE_F_ACCESS_PLATFORM & 1) != 0);
		if (m->payload.iotlb.type == GATE_IOTLB_UPDATE)
			CHECK(size > 0 && m->payload.iotlb.iova + size <= (wide)1 << 64 &&
				covered(m->payload.iotlb.uva, size));
	}
	if (m->request == GATE_SET_PROTOCOL_FEATURES)
		CHECK((j->out.payload.u64 >> GATE_PF_CONFIGURE_MEM_SLOTS & 1) == 0);
}

static void
one(const struct gate_fuzz_message *r)
{
	const unsigned int nb_fds = r->nb_fds % (GATE_MAX_FDS + 1);
	struct gate_message m = {.request = r->request % (GATE_NB_REQUESTS + 1)};
	const struct gate_proto *row = gate_proto(m.request);
	struct gate_fd fds[GATE_MAX_FDS];
	struct gate_judgement j;
	unsigned int i;

	m.flags = (r->flags & GATE_FUZZ_VERSION) != 0 ? r->size : GATE_VERSION | GATE_NEED_REPLY;
	if ((r->flags & GATE_FUZZ_NO_ACK) != 0)
		m.flags &= ~(uint32_t)GATE_NEED_REPLY;
	m.size = row != NULL ? row->size_max : 0;
	fill(&m, r, nb_fds);
	if ((r->flags & GATE_FUZZ_SIZE) != 0)
		m.size = r->size;
	for (i = 0; i < nb_fds; i++) {
		const uint8_t kind = r->kinds[i], exponent = r->file[i % 4] % 64;

		fds[i] = (struct gate_fd){kind < GATE_FD_MEMORY ? kind : GATE_FD_MEMORY, 10 + i,
			UINT64_C(1) << exponent, 4096};
	}
	if (gate_judge_header(m.request, m.flags, m.size) != NULL)
		return;
	/* As on the wire: behind a payload there is nothing. */
	memset(m.payload.raw + m.size, 0, sizeof(m.payload) - m.size);
	before = conn;
	gate_judge(&offer, &conn, &m, fds, nb_fds, &j);
	if (getenv("FUZZ_TRACE") != NULL)
		fprintf(stderr, "%s, %u descriptors: %s\n", gate_proto_name(m.request), nb_fds,
			j.reason != NULL ? j.reason : "accepted");
	CHECK((j.reason == NULL) == (j.verdict == GATE_PASS || j.verdict == GATE_ANSWER));
	if (j.reason != NULL)
		CHECK(memcmp(&before, &conn, sizeof(conn)) == 0);
	if (j.verdict == GATE_PASS)
		check_pass(&m, &j, nb_fds);
	check_state();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gate_fuzz_head head;
	struct gate_fuzz_message r;
	size_t at, n = 0;

	if (size < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	memset(&conn, 0, sizeof(conn));
	offer = (struct gate_offer){.features = GF_OFFER,
		.protocol_features = GF_PROTOCOL,
		.rings = head.rings + 1,
		.queues = 1,
		.space_max = UINT64_C(1) << (20 + head.space % 43),
		.log_max = 1 << 28,
		.inflight_max = 1 << 26};
	for (at = sizeof(head); at + sizeof(r) <= size && n < GATE_FUZZ_MESSAGES; n++) {
		memcpy(&r, data + at, sizeof(r));
		at += sizeof(r);
		one(&r);
	}
	return 0;
}
