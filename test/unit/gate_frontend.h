/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Messages of a right front-end, for the tests of lib/gate: two regions, rings in the first. Data
 * only, on any thread.
 */

#ifndef GATE_FRONTEND_H
#define GATE_FRONTEND_H

#include <string.h>

#include "gate_judge.h"

#define GF_GPA	  UINT64_C(0x10000000)
#define GF_UVA	  UINT64_C(0x7f0000000000)
#define GF_SIZE	  UINT64_C(0x200000)
#define GF_GPA_2  UINT64_C(0x100000000)
#define GF_UVA_2  UINT64_C(0x7f1000000000)
#define GF_SIZE_2 UINT64_C(0x800000)
#define GF_RING	  UINT64_C(0x10000) /* from one ring to the next */
#define GF_NUM	  256

#define GF_BIT(n) (UINT64_C(1) << (n))
#define GF_OFFER \
	(GF_BIT(GATE_F_VERSION_1) | GF_BIT(GATE_F_PROTOCOL_FEATURES) | GF_BIT(GATE_F_LOG_ALL) | \
		GF_BIT(GATE_F_EVENT_IDX) | GF_BIT(GATE_F_RING_PACKED) | \
		GF_BIT(GATE_F_ACCESS_PLATFORM))
#define GF_FEATURES (GF_BIT(GATE_F_VERSION_1) | GF_BIT(GATE_F_PROTOCOL_FEATURES))
#define GF_PROTOCOL \
	(GF_BIT(GATE_PF_MQ) | GF_BIT(GATE_PF_LOG_SHMFD) | GF_BIT(GATE_PF_RARP) | \
		GF_BIT(GATE_PF_REPLY_ACK) | GF_BIT(GATE_PF_MTU) | GF_BIT(GATE_PF_BACKEND_REQ) | \
		GF_BIT(GATE_PF_CONFIG) | GF_BIT(GATE_PF_INFLIGHT_SHMFD) | \
		GF_BIT(GATE_PF_CONFIGURE_MEM_SLOTS) | GF_BIT(GATE_PF_STATUS))

static inline struct gate_message
gf_message(uint32_t request, uint32_t size)
{
	return (struct gate_message){
		.request = request, .flags = GATE_VERSION | GATE_NEED_REPLY, .size = size};
}

static inline struct gate_message
gf_empty(uint32_t request)
{
	return gf_message(request, 0);
}

static inline struct gate_message
gf_u64(uint32_t request, uint64_t value)
{
	struct gate_message m = gf_message(request, 8);

	m.payload.u64 = value;
	return m;
}

static inline struct gate_message
gf_state(uint32_t request, uint32_t ring, uint32_t num)
{
	struct gate_message m = gf_message(request, 8);

	m.payload.state.index = ring;
	m.payload.state.num = num;
	return m;
}

static inline struct gate_message
gf_addr(uint32_t ring, uint64_t uva)
{
	struct gate_message m = gf_message(GATE_SET_VRING_ADDR, 40);

	m.payload.addr.index = ring;
	m.payload.addr.desc = uva;
	m.payload.addr.avail = uva + 0x4000;
	m.payload.addr.used = uva + 0x8000;
	return m;
}

static inline struct gate_message
gf_table(unsigned int n)
{
	struct gate_message m = gf_message(GATE_SET_MEM_TABLE, 8 + 32 * n);
	unsigned int i;

	m.payload.table.nb_regions = n;
	for (i = 0; i < n && i < GATE_MAX_REGIONS; i++)
		m.payload.table.regions[i] = (struct gate_wire_region){
			i == 0 ? GF_GPA : GF_GPA_2 * i, i == 0 ? GF_SIZE : GF_SIZE_2,
			i == 0 ? GF_UVA : GF_UVA_2 + (i << 28), 0};
	return m;
}

static inline struct gate_message
gf_slot(uint32_t request, unsigned int i)
{
	struct gate_message m = gf_message(request, 40), t = gf_table(i + 1);

	m.payload.slot.region = t.payload.table.regions[i];
	return m;
}

static inline struct gate_message
gf_log(uint64_t size, uint64_t offset)
{
	struct gate_message m = gf_message(GATE_SET_LOG_BASE, 16);

	m.payload.log.size = size;
	m.payload.log.offset = offset;
	return m;
}

static inline struct gate_message
gf_inflight(uint32_t request, uint64_t size, uint64_t offset, uint16_t queues, uint16_t entries)
{
	struct gate_message m = gf_message(request, 24);

	m.payload.inflight.size = size;
	m.payload.inflight.offset = offset;
	m.payload.inflight.queues = queues;
	m.payload.inflight.queue_size = entries;
	return m;
}

static inline struct gate_message
gf_config(uint32_t request, uint32_t offset, uint32_t size, uint32_t flags)
{
	struct gate_message m = gf_message(request, GATE_PAYLOAD_MAX);

	m.payload.config.offset = offset;
	m.payload.config.size = size;
	m.payload.config.flags = flags;
	return m;
}

#endif /* GATE_FRONTEND_H */
