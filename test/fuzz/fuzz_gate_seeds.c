/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What right front-ends say, as inputs of the gate's fuzzer, and mutations that keep messages
 * whole. Any one thread.
 */

#include "fuzz_gate.h"
#include "fuzz_list.h"
#include "fuzz_seeds.h"

#define HEAD sizeof(struct gate_fuzz_head)
#define REC  sizeof(struct gate_fuzz_message)

static struct {
	struct gate_fuzz_head head;
	struct gate_fuzz_message message[GATE_FUZZ_MESSAGES];
	size_t n;
} seed;

static struct gate_fuzz_message *
say(uint8_t request, uint8_t nb_fds, uint8_t kind)
{
	struct gate_fuzz_message *r = &seed.message[seed.n++];

	*r = (struct gate_fuzz_message){.request = request, .nb_fds = nb_fds};
	memset(r->kinds, kind, sizeof(r->kinds));
	memset(r->file, 40, sizeof(r->file));
	return r;
}

static void
set(struct gate_fuzz_message *r, unsigned int i, uint8_t base, int16_t add, uint8_t shift)
{
	r->value[i] = (struct gate_fuzz_value){base, shift, add};
}

static void
with(uint8_t request, uint8_t base, int16_t add)
{
	set(say(request, 0, 0), 0, base, add, 0);
}

static void
of_ring(uint8_t request, uint8_t ring, uint8_t base, int16_t add)
{
	struct gate_fuzz_message *r = say(request, 0, 0);

	set(r, 0, GATE_V_0, ring, 0);
	set(r, 1, base, add, 0);
}

static void
set_region(struct gate_fuzz_message *r, unsigned int i)
{
	set(r, 4 * i, GATE_V_4G, i, 32);
	set(r, 4 * i + 1, GATE_V_2M, 0, 0);
	set(r, 4 * i + 2, i == 0 ? GATE_V_UVA : GATE_V_UVA_2, i, 32);
	set(r, 4 * i + 3, GATE_V_0, i, 12);
}

static void
table(unsigned int n)
{
	struct gate_fuzz_message *r = say(GATE_SET_MEM_TABLE, n, GATE_FD_MEMORY);
	unsigned int i;

	for (i = 0; i < n && i < 3; i++)
		set_region(r, i);
}

static void
slot(uint8_t request, unsigned int i)
{
	struct gate_fuzz_message *r = say(request, request == GATE_ADD_MEM_REG, GATE_FD_MEMORY);

	set(r, 0, GATE_V_4G, i, 32);
	set(r, 1, GATE_V_2M, 0, 0);
	set(r, 2, i == 0 ? GATE_V_UVA : GATE_V_UVA_2, i, 32);
}

static void
addr(uint8_t ring, int16_t flags)
{
	struct gate_fuzz_message *r = say(GATE_SET_VRING_ADDR, 0, 0);

	set(r, 0, GATE_V_0, ring, 0);
	set(r, 1, GATE_V_0, flags, 0);
	set(r, 2, GATE_V_UVA, ring, 16);
	set(r, 3, GATE_V_UVA, 4 * ring + 1, 14);
	set(r, 4, GATE_V_UVA, 4 * ring + 2, 14);
	set(r, 5, GATE_V_4G, ring, 12);
}

static void
ring(uint8_t index)
{
	of_ring(GATE_SET_VRING_NUM, index, GATE_V_256, 0);
	of_ring(GATE_SET_VRING_BASE, index, GATE_V_0, 0);
	addr(index, 0);
	set(say(GATE_SET_VRING_KICK, 1, GATE_FD_EVENT), 0, GATE_V_0, index, 0);
	set(say(GATE_SET_VRING_CALL, 1, GATE_FD_EVENT), 0, GATE_V_0, index, 0);
	of_ring(GATE_SET_VRING_ENABLE, index, GATE_V_0, 1);
}

static void
iotlb(uint8_t type, uint8_t iova, uint8_t size, uint8_t uva)
{
	struct gate_fuzz_message *r = say(GATE_IOTLB_MSG, 0, 0);

	set(r, 0, iova, 0, 0);
	set(r, 1, size, 0, 0);
	set(r, 2, uva, 0, 0);
	set(r, 3, GATE_V_0, 3, 0);
	set(r, 4, GATE_V_0, type, 0);
}

static void
hello(uint8_t features)
{
	say(GATE_GET_FEATURES, 0, 0);
	say(GATE_GET_PROTOCOL_FEATURES, 0, 0);
	with(GATE_SET_PROTOCOL_FEATURES, GATE_V_PROTOCOL, 0);
	say(GATE_GET_QUEUE_NUM, 0, 0);
	say(GATE_SET_OWNER, 0, 0);
	with(GATE_SET_FEATURES, features, 0);
}

static void
dirty_log(void)
{
	struct gate_fuzz_message *r = say(GATE_SET_LOG_BASE, 1, GATE_FD_MEMORY);

	set(r, 0, GATE_V_2M, 0, 0);
	set(r, 1, GATE_V_PAGE, 0, 0);
}

static void
begin(uint8_t rings)
{
	memset(&seed, 0, sizeof(seed));
	seed.head =
		(struct gate_fuzz_head){.version = FUZZ_VERSION, .rings = rings - 1, .space = 30};
}

static void
give(seed_fn fn, void *arg, const char *name)
{
	static uint8_t bytes[HEAD + GATE_FUZZ_MESSAGES * REC];

	memcpy(bytes, &seed.head, HEAD);
	memcpy(bytes + HEAD, seed.message, seed.n * REC);
	fn(arg, name, bytes, HEAD + seed.n * REC);
}

void
fuzz_seeds(enum fuzz_target target, seed_fn fn, void *arg)
{
	struct gate_fuzz_message *r;
	unsigned int i;

	(void)target;
	for (i = 0; i < 2; i++) {
		begin(4);
		hello(i == 0 ? GATE_V_FEATURES : GATE_V_PACKED);
		table(2);
		ring(0);
		ring(1);
		with(GATE_SET_STATUS, GATE_V_0, 15);
		give(fn, arg, i == 0 ? "split" : "packed");
		/* A migration, then the end. */
		dirty_log();
		addr(0, 1);
		addr(1, 1);
		with(GATE_SET_FEATURES, i == 0 ? GATE_V_LOGGED : GATE_V_PACKED, 0);
		of_ring(GATE_GET_VRING_BASE, 0, GATE_V_0, 0);
		of_ring(GATE_GET_VRING_BASE, 1, GATE_V_0, 0);
		say(GATE_SEND_RARP, 0, 0);
		with(GATE_SET_FEATURES, GATE_V_FEATURES, 0);
		ring(0);
		say(GATE_RESET_OWNER, 0, 0);
		hello(GATE_V_FEATURES);
		table(3);
		give(fn, arg, i == 0 ? "split-migrates" : "packed-migrates");
	}
	begin(2);
	hello(GATE_V_FEATURES);
	table(1);
	for (i = 0; i < 4; i++)
		ring(i);
	table(8);
	give(fn, arg, "more-rings-than-there-are");

	begin(2);
	hello(GATE_V_PLATFORM);
	table(2);
	ring(0);
	iotlb(GATE_IOTLB_UPDATE, GATE_V_4G, GATE_V_PAGE, GATE_V_UVA);
	iotlb(GATE_IOTLB_UPDATE, GATE_V_TOP, GATE_V_PAGE, GATE_V_UVA_2);
	iotlb(GATE_IOTLB_UPDATE, GATE_V_0, GATE_V_2M, GATE_V_UVA_END);
	iotlb(GATE_IOTLB_INVALIDATE, GATE_V_4G, GATE_V_PAGE, GATE_V_0);
	iotlb(GATE_IOTLB_INVALIDATE, GATE_V_0, GATE_V_0, GATE_V_0);
	iotlb(GATE_IOTLB_MISS, GATE_V_4G, GATE_V_PAGE, GATE_V_0);
	iotlb(GATE_IOTLB_ACCESS_FAIL, GATE_V_4G, GATE_V_PAGE, GATE_V_0);
	give(fn, arg, "behind-an-iommu");

	begin(2);
	hello(GATE_V_FEATURES);
	for (i = 0; i < 3; i++)
		slot(GATE_ADD_MEM_REG, i);
	ring(0);
	slot(GATE_REM_MEM_REG, 1);
	slot(GATE_REM_MEM_REG, 0);
	give(fn, arg, "slots");

	begin(2);
	hello(GATE_V_FEATURES);
	for (i = 0; i < 2; i++) {
		r = say(i == 0 ? GATE_GET_INFLIGHT_FD : GATE_SET_INFLIGHT_FD, i, GATE_FD_MEMORY);
		set(r, 0, GATE_V_2M, 0, 0);
		set(r, 2, GATE_V_0, 2, 0);
		set(r, 3, GATE_V_256, 0, 0);
	}
	r = say(GATE_GET_CONFIG, 0, 0);
	set(r, 1, GATE_V_0, 12, 0);
	with(GATE_NET_SET_MTU, GATE_V_0, 1500);
	say(GATE_SET_BACKEND_REQ_FD, 1, GATE_FD_SOCKET);
	say(GATE_SET_LOG_FD, 1, GATE_FD_EVENT);
	say(GATE_POSTCOPY_ADVISE, 0, 0);
	give(fn, arg, "others");
}

static void
change(void *record, uint64_t *s)
{
	struct gate_fuzz_message *r = record;
	struct gate_fuzz_value *v = &r->value[fuzz_random(s) % GATE_FUZZ_VALUES];
	const uint8_t byte = fuzz_random(s);

	switch (fuzz_random(s) % 8) {
	case 0:
		r->request = byte;
		break;
	case 1:
		r->flags = fuzz_random(s) % 4 != 0 ? 0 : byte;
		break;
	case 2:
		r->nb_fds = byte;
		break;
	case 3:
		r->kinds[byte % GATE_MAX_FDS] = fuzz_random(s) % 6;
		break;
	case 4:
		r->file[byte % 4] = fuzz_random(s);
		break;
	case 5:
		v->base = byte;
		break;
	case 6:
		v->shift = byte;
		break;
	case 7:
		v->add += (int8_t)byte / 8;
		break;
	}
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int number)
{
	return fuzz_list_mutate(data, size, max_size, number, REC, change);
}

size_t
LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
	uint8_t *out, size_t max_size, unsigned int number)
{
	return fuzz_list_cross(data1, size1, data2, size2, out, max_size, number, REC);
}
