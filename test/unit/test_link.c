/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Rings and buffers behind a link whose two sides do not see each other's writes: ordinary
 * traffic with every hook in place, and with each one missing, which it has to notice. With the
 * checking accessors every access is judged as well. Runs on the test's only thread.
 */

#include "harness.h"

#define ROUNDS	40
#define MAX_LEN 100

static uint8_t
pattern(uint32_t round, uint32_t k)
{
	return round * 37 + k * 11 + 1;
}

/* A chain of pieces of odd lengths and places; its bytes are written or compared. */
static bool
guest_bytes(struct queue *q, const struct mock_buf *buf, unsigned int nb, uint32_t round,
	bool write, bool check)
{
	uint32_t i, k, at = 0;

	for (i = 0; i < nb; i++) {
		uint8_t byte[MAX_LEN], got[MAX_LEN];

		if (buf[i].write != write)
			continue;
		for (k = 0; k < buf[i].len; k++)
			byte[k] = write && !check ? 0xee : pattern(round, at + k);
		at += buf[i].len;
		if (!check)
			mock_mem_write(&q->mem, buf[i].iova, byte, buf[i].len);
		else if (!mock_mem_read(&q->mem, buf[i].iova, got, buf[i].len) ||
			memcmp(got, byte, buf[i].len) != 0)
			return false;
	}
	return true;
}

/* One chain there and back; what is wrong, or NULL. */
static const char *
there_and_back(struct queue *q, uint32_t round, uint64_t *seed)
{
	struct vringh_chain *chain = q->batch.chain;
	uint32_t i, read_len = 0, write_len = 0, nb = 1 + mock_random(seed) % 4;
	struct mock_buf buf[4];
	struct vringh_iter it;
	struct mock_used used;
	uint8_t byte[4 * MAX_LEN];
	bool indirect = q->v.indirect && round % 2;
	int n;

	for (i = 0; i < nb; i++) {
		buf[i] = (struct mock_buf){.len = 1 + mock_random(seed) % MAX_LEN,
			.write = i >= nb / 2,
			.fixed = true,
			.iova = BUFS_AT + i * 200 + mock_random(seed) % 100};
		*(buf[i].write ? &write_len : &read_len) += buf[i].len;
	}
	/* The driver asks for a call, the device for a kick, every second time. */
	if (round % 4 < 2)
		mock_events_enable(&q->drv, 0);
	else
		mock_events_disable(&q->drv);
	if (round % 3 == 0 && vringh_notify_enable(&q->vr))
		return "something is there before it is";
	if (round % 3 != 0)
		vringh_notify_disable(&q->vr);
	guest_bytes(q, buf, nb, round, false, false);
	guest_bytes(q, buf, nb, round, true, false);
	if (mock_post(&q->drv, buf, nb, indirect, round) < 0)
		return "no room";
	mock_publish(&q->drv);
	/* With an event index the kick is suppressed by the position, of a ring split. */
	if (mock_should_kick(&q->drv) != (round % 3 == 0) &&
		(round % 3 == 0 || q->v.packed || !q->v.event_idx))
		return "kick not as asked for";
	if (round % 5 == 0 && !vringh_notify_enable(&q->vr))
		return "what is there is not seen when the device goes to sleep";
	n = fetch(q, 2);
	if (n != 1 || chain->error != VRINGH_OK || chain->read_len != read_len ||
		chain->write_len != write_len)
		return "chain not fetched as posted";
	it = vringh_iter_read(&q->vr, chain);
	if (vringh_pull(&it, byte, sizeof(byte)) != read_len)
		return "bytes missing";
	for (i = 0; i < read_len; i++)
		if (byte[i] != pattern(round, i))
			return "wrong bytes read";
	for (i = 0; i < write_len; i++)
		byte[i] = pattern(round, i);
	it = vringh_iter_write(&q->vr, chain);
	chain->written = vringh_push(&it, byte, write_len);
	complete(q, 0, 1);
	if (vringh_need_notify(&q->vr) != (round % 4 < 2) &&
		(round % 4 < 2 || q->v.packed || !q->v.event_idx))
		return "call not as asked for";
	n = mock_collect(&q->drv, &used, 1);
	if (n != 1 || used.token != round || used.len != write_len)
		return "chain not used as completed";
	return guest_bytes(q, buf, nb, round, true, true) ? NULL : "wrong bytes written";
}

static const char *
traffic(struct queue *q)
{
	const char *fault = NULL;
	uint64_t seed = 11;
	uint32_t round;

	queue_rewind(q, near_end(&q->v, 5));
	for (round = 0; round < ROUNDS && fault == NULL; round++)
		fault = there_and_back(q, round, &seed);
	return fault;
}

static void
works(struct queue *q)
{
	const char *fault = traffic(q);

	if (fault != NULL)
		fail_msg("%s", fault);
	/* Both ways, or this proves nothing. */
	assert_true(q->link.nb_invalidates > 0 || q->v.mem == MEM_NTB);
	assert_true(q->link.nb_flushes > 0 || (q->v.mem == MEM_MIX && !q->v.packed));
}

/* Is a bus address behind the link, and in which memory of the test's? */
static bool
linked(const struct queue *q, uint64_t iova)
{
	int i;

	for (i = 0; i < 3; i++)
		if (q->area[i] != &q->mem && mock_mem_at(q->area[i], iova, 1) != NULL)
			return q->area[i]->link != NULL;
	return q->mem.link != NULL && mock_mem_at(&q->mem, iova, 1) != NULL;
}

/* A packed chain's bytes may be here and its descriptor behind the link: only a hook orders them.
 */
static void
ordered(struct queue *q)
{
	uint64_t before;

	post_one(q, 8, true, 0);
	assert_int_equal(fetch(q, 1), 1);
	before = q->link.nb_orders;
	complete(q, 0, 1);
	assert_int_equal(q->link.nb_orders - before, linked(q, DESC_AT));
}

static void
expect_fault(struct queue *q, const char *lost)
{
	if (traffic(q) == NULL)
		fail_msg("nobody misses %s", lost);
	memset(q->link.lose_flush, 0, sizeof(q->link.lose_flush));
	memset(q->link.lose_invalidate, 0, sizeof(q->link.lose_invalidate));
}

/* Each kind of word that only gets across by a hook. */
static void
each_hook_lost(struct queue *q)
{
	const uint64_t ring = DEVICE_AT + 4, event = ring + 8 * q->v.size;
	const struct {
		const char *name;
		uint64_t from, to;
		unsigned int needs; /* T_* */
		bool flush;
	} loss[] = {
		{"descriptors", DESC_AT, DRIVER_AT, 0, false},
		{"used descriptors", DESC_AT, DRIVER_AT, T_PACKED | T_TOGETHER, true},
		{"used descriptors apart", DEVICE_AT + VRINGH_APART_OFFSET, TABLES_AT, T_APART,
			true},
		{"avail index", DRIVER_AT + 2, DRIVER_AT + 4, T_SPLIT, false},
		{"avail ring", DRIVER_AT + 4, DRIVER_AT + 4 + 2 * q->v.size, T_SPLIT, false},
		{"avail flags", DRIVER_AT, DRIVER_AT + 2, T_SPLIT | T_FLAGS, false},
		{"used event", DRIVER_AT + 4 + 2 * q->v.size, DEVICE_AT, T_SPLIT | T_EVENT, false},
		{"driver events", DRIVER_AT, DEVICE_AT, T_PACKED, false},
		{"used index", DEVICE_AT + 2, ring, T_SPLIT, true},
		{"used ring", ring, event, T_SPLIT, true},
		{"used flags", DEVICE_AT, DEVICE_AT + 2, T_SPLIT | T_FLAGS, true},
		{"avail event", event, event + 2, T_SPLIT | T_EVENT, true},
		{"device event flags", DEVICE_AT + 2, DEVICE_AT + 4, T_PACKED, true},
		{"device event offset", DEVICE_AT, DEVICE_AT + 2, T_PACKED | T_EVENT, true},
		{"indirect tables", TABLES_AT, BUFS_AT, T_INDIRECT, false},
		{"bytes to read", BUFS_AT, NEXT_AT, 0, false},
		{"bytes written", BUFS_AT, NEXT_AT, 0, true},
	};
	unsigned int has = (q->v.packed ? T_PACKED : T_SPLIT) |
		(q->v.event_idx ? T_EVENT : T_FLAGS) | (q->v.indirect ? T_INDIRECT : 0) |
		(q->cfg.apart ? T_APART : T_TOGETHER);
	unsigned int i, tried = 0;

	for (i = 0; i < DIM(loss); i++) {
		uint64_t *lose = loss[i].flush ? q->link.lose_flush : q->link.lose_invalidate;

		if ((loss[i].needs & ~has) != 0 || !linked(q, loss[i].from))
			continue;
		q->link.loses = true;
		lose[0] = loss[i].from;
		lose[1] = loss[i].to;
		expect_fault(q, loss[i].name);
		tried++;
	}
	assert_true(tried > 0);
	if (traffic(q) != NULL)
		fail_msg("%s", "hooks are back, and it does not work");
}

/* No hook of a kind at all; no hooks. */
static void
no_hooks(struct queue *q)
{
	struct mock_mem *mem[4] = {&q->mem, q->area[0], q->area[1], q->area[2]};
	struct vringh_io io;
	unsigned int i, without;

	q->link.loses = true;
	for (without = 0; without < 3; without++) {
		io = *mock_link_io(&q->link);
		if (without == 0)
			io.flush = NULL;
		if (without == 1)
			io.invalidate = NULL;
		/* Of a used ring of its own nothing is read, of split descriptors nothing written.
		 */
		if ((without == 1 && q->v.mem == MEM_NTB) ||
			(without == 0 && q->v.mem == MEM_MIX && !q->v.packed))
			continue;
		for (i = 0; i < 4; i++)
			if (mem[i]->view.io != NULL)
				mem[i]->view.io = without == 2 ? NULL : &io;
		if (traffic(q) == NULL)
			fail_msg("works without %s",
				without == 0	     ? "flush" :
					without == 1 ? "invalidate" :
						       "hooks");
		for (i = 0; i < 4; i++)
			mock_mem_view(mem[i]);
	}
}

int
main(void)
{
	static const struct ring_test tests[] = {
		{"traffic behind a link", works, T_ALL | T_LINK, 8, 256},
		{"lost hook that nobody misses", each_hook_lost, T_ALL | T_LINK, 8, 8},
		{"bytes after their descriptor", ordered, T_ALL | T_LINK | T_PACKED, 8, 8},
		{"works without hooks", no_hooks, T_ALL | T_LINK, 8, 8},
	};

	return RUN("link", tests);
}
