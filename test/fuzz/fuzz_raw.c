/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Raw target: the input's bytes are all of guest memory, and a second thread, which plays the
 * guest, rewrites it all the time while this one makes the device's calls. Nothing may be
 * expected of contents here, only of bounds. The two meet in guest memory alone.
 */

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "fuzz_guest.h"

#define ROUNDS	   24
#define BURST	   64 /* words that the guest writes at once */
#define MAX_CHAINS 32
#define MAX_SEGS   1024
#define WRAP	   0x8000

struct raw {
	struct guest g;
	struct vringh_config cfg;
	struct vringh vr;
	struct vringh_batch batch;
	struct vringh_dirty_log dirty;
	const uint8_t *data; /* what the guest writes is taken from here, too */
	size_t size;
	uint64_t seed;
	uint16_t avail; /* where the device stands, as the guest could know */
	bool started, stop;
};

/* One word, if it is mapped and aligned there: as a guest's CPU would. */
static void
store(struct guest_space *s, uint64_t iova, uint32_t width, uint64_t v)
{
	uint64_t n = width;
	uint8_t *p = guest_piece(s, iova, &n, 0);

	if (p == NULL || n < width || (uintptr_t)p % width != 0)
		return;
	switch (width) {
	case 1:
		__atomic_store_n(p, (uint8_t)v, __ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n((uint16_t *)p, (uint16_t)v, __ATOMIC_RELAXED);
		break;
	case 4:
		__atomic_store_n((uint32_t *)p, (uint32_t)v, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED);
	}
}

/* Anything anywhere, or at random what the input has elsewhere. */
static void
write_anything(struct raw *r, uint64_t *seed)
{
	uint64_t random = fuzz_random(seed), v = fuzz_random(seed);
	uint32_t width = 1 << random % 4, area = random / 4 % (AREA_MAX + 1);
	size_t off = v % r->size;

	if (random / 16 % 2) {
		v = 0;
		memcpy(&v, r->data + off, r->size - off < 8 ? r->size - off : 8);
	}
	random >>= 5;
	if (area < AREA_MAX)
		store(guest_area(&r->g, area), r->g.area[area] + random % r->g.area_len[area],
			width, v);
	else
		store(&r->g.space[0], r->g.space[0].base + random % r->g.space[0].len, width, v);
}

/* A descriptor that can be used, of the ring or of an indirect table, flags last or not. */
static void
write_desc(struct raw *r, uint64_t *seed, uint16_t avail)
{
	uint64_t random = fuzz_random(seed), v = fuzz_random(seed), at, addr;
	bool table = random % 4 == 0, indirect = random / 4 % 4 == 0;
	uint32_t i = random / 16 % r->cfg.size, bits = 0, len = v % 600;
	struct guest_space *s = table ? &r->g.space[0] : guest_area(&r->g, AREA_DESC);

	at = (table ? r->g.tables : r->g.area[AREA_DESC]) + 16 * i;
	addr = (indirect ? r->g.tables : r->g.bufs) + (v >> 16) % 8000 / 16 * 16;
	if (indirect)
		len = 16 * (v % 4 + 1);
	if (r->cfg.packed && !table) {
		bool wrap = (i >= (avail & (WRAP - 1u))) == !!(avail & WRAP);

		bits = 1 << (wrap ? VRING_PACKED_DESC_F_AVAIL : VRING_PACKED_DESC_F_USED);
	}
	bits |= indirect ? VRING_DESC_F_INDIRECT : v >> 32 & 3;
	store(s, at, 8, addr);
	store(s, at + 8, 4, len);
	if (r->cfg.packed) {
		store(s, at + 12, 2, v >> 40);
		store(s, at + 14, 2, bits);
	} else {
		store(s, at + 12, 2, bits);
		store(s, at + 14, 2, (v >> 40) % r->cfg.size);
	}
}

/* One word of the next chain to and fro between good and bad: for a device that reads it twice. */
static void
flip(struct raw *r, uint64_t *seed, uint16_t avail)
{
	struct guest_space *s = guest_area(&r->g, AREA_DESC);
	uint64_t random = fuzz_random(seed), bad = fuzz_random(seed), good;
	uint64_t at = r->g.area[AREA_DESC] + 16 * (random / 16 % r->cfg.size);
	uint32_t width = 2, i;

	if (r->cfg.packed)
		at = r->g.area[AREA_DESC] +
			16 * ((avail & (WRAP - 1)) + random / 16 % 4) % r->cfg.size;
	switch (random % 4) {
	case 0: /* address */
		width = 8;
		good = r->g.bufs + bad % 4096 / 16 * 16;
		break;
	case 1: /* length */
		at += 8;
		width = 4;
		good = 16 * (bad % 8 + 1);
		break;
	case 2: /* split: flags; packed: id */
		at += 12;
		good = bad % 4;
		break;
	default: /* split: head; packed: flags */
		good = bad % r->cfg.size;
		if (r->cfg.packed) {
			at += 14;
			good = 1 << (avail & WRAP ? VRING_PACKED_DESC_F_AVAIL :
						    VRING_PACKED_DESC_F_USED);
			break;
		}
		s = guest_area(&r->g, AREA_DRIVER);
		at = r->g.area[AREA_DRIVER] + 4 + 2 * ((avail + random / 16 % 4) % r->cfg.size);
	}
	for (i = 0; i < BURST; i++)
		store(s, at, width, i % 2 ? good : bad);
}

static void
rewrite(struct raw *r, uint64_t *seed)
{
	uint16_t avail = __atomic_load_n(&r->avail, __ATOMIC_RELAXED);
	struct guest_space *s = guest_area(&r->g, AREA_DRIVER);
	uint64_t random = fuzz_random(seed), v = fuzz_random(seed);

	switch (random % 8) {
	case 0:
		write_anything(r, seed);
		break;
	case 1:
	case 2:
		if (r->cfg.packed)
			break;
		/* Up to as much as there can be; anything else comes from write_anything(). */
		store(s, r->g.area[AREA_DRIVER] + 2, 2, avail + v % (r->cfg.size + 1));
		store(s, r->g.area[AREA_DRIVER] + 4 + 2 * ((v >> 32) % r->cfg.size), 2,
			(v >> 16) % r->cfg.size);
		break;
	case 3:
		flip(r, seed, avail);
		break;
	default:
		write_desc(r, seed, avail);
	}
}

static void *
guest_thread(void *arg)
{
	struct raw *r = arg;
	uint64_t seed = r->seed;
	uint32_t i;

	__atomic_store_n(&r->started, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		for (i = 0; i < BURST; i++)
			rewrite(r, &seed);
		/* Where both share a CPU. */
		sched_yield();
	}
	return NULL;
}

/* Every byte of guest memory from the input, over and over. */
static void
fill(struct raw *r)
{
	uint32_t k, i;
	uint64_t n, at;

	for (k = 0; k < DIM(r->g.space); k++)
		for (i = 0; i < r->g.space[k].nb; i++) {
			const struct guest_region *e = &r->g.space[k].region[i];

			for (at = 0; e->block != NULL && at < e->r.len; at += n) {
				uint64_t from = (e->r.iova - r->g.space[k].base + at) % r->size;

				n = r->size - from < e->r.len - at ? r->size - from : e->r.len - at;
				memcpy(e->r.host + at, r->data + from, n);
			}
		}
}

static uint64_t
check_segs(struct raw *r, const struct vringh_seg *seg, uint32_t nb, uint32_t perm)
{
	uint64_t sum = 0;

	for (; nb > 0; nb--, seg++) {
		uint64_t len = seg->len;

		CHECK(len > 0);
		CHECK(guest_piece(&r->g.space[0], seg->iova, &len, perm) == seg->addr);
		CHECK(len == seg->len);
		sum += len;
	}
	return sum;
}

static void
check_chain(struct raw *r, const struct vringh_chain *chain)
{
	CHECK(chain->slots >= 1 && chain->slots <= r->cfg.size);
	CHECK(r->cfg.packed || (chain->id < r->cfg.size && chain->slots == 1));
	if (chain->error != VRINGH_OK) {
		CHECK(chain->error >= VRINGH_E_NEXT && chain->error <= VRINGH_E_SEGS);
		CHECK(chain->nb_read + chain->nb_write == 0);
		CHECK(chain->read_len == 0 && chain->write_len == 0);
		return;
	}
	CHECK(check_segs(r, chain->seg, chain->nb_read, VRINGH_PERM_READ) == chain->read_len);
	CHECK(check_segs(r, chain->seg + chain->nb_read, chain->nb_write, VRINGH_PERM_WRITE) ==
		chain->write_len);
}

static uint32_t
distance(const struct raw *r)
{
	struct vringh_state s = vringh_get_state(&r->vr);

	if (!r->cfg.packed)
		return (uint16_t)(s.avail - s.used);
	CHECK((s.avail & (WRAP - 1)) < r->cfg.size && (s.used & (WRAP - 1)) < r->cfg.size);
	return (s.avail & (WRAP - 1)) - (s.used & (WRAP - 1)) +
		((s.avail ^ s.used) & WRAP ? r->cfg.size : 0);
}

/* Up to some bytes of a chain out and in: the contents are the guest's business. */
static void
touch(struct raw *r, struct vringh_chain *chain)
{
	struct vringh_iter in = vringh_iter_read(&r->vr, chain), out;
	uint8_t bytes[300];

	vringh_pull(&in, bytes, 12);
	vringh_pull(&in, bytes, sizeof(bytes));
	out = vringh_iter_write(&r->vr, chain);
	r->g.huge_written = true;
	chain->written = vringh_push(&out, bytes, sizeof(bytes));
	out = vringh_iter_write(&r->vr, chain);
	in = vringh_iter_read(&r->vr, chain);
	vringh_copy(&out, &in, sizeof(bytes));
}

/* A queue that broke starts over from what it held for true. */
static void
restart(struct raw *r)
{
	if (r->cfg.packed)
		r->cfg.state = vringh_get_state(&r->vr);
	else
		r->cfg.state.used = vringh_get_state(&r->vr).used;
	r->cfg.state.avail = r->cfg.state.used;
	CHECK(vringh_init(&r->vr, &r->cfg) == VRINGH_OK);
	if (r->dirty.bitmap != NULL)
		CHECK(vringh_set_dirty_log(&r->vr, &r->dirty) == 0);
}

static void
device_round(struct raw *r, uint64_t random)
{
	uint32_t max = random % (MAX_CHAINS + 1), back, done, i;
	struct vringh_batch *b = &r->batch;
	int n;

	__atomic_store_n(&r->avail, vringh_get_state(&r->vr).avail, __ATOMIC_RELAXED);
	b->nb_chains = b->nb_segs = 0;
	n = vringh_fetch(&r->vr, b, max);
	CHECK(n <= (int)max && distance(r) <= r->cfg.size);
	if (n < 0) {
		CHECK(b->nb_chains == 0 && b->nb_segs == 0);
		if (n == -VRINGH_E_MISS && vringh_broken(&r->vr) == VRINGH_OK)
			vringh_refuse_miss(&r->vr);
		else
			restart(r);
		return;
	}
	CHECK(b->nb_chains == (uint32_t)n && b->nb_segs <= MAX_SEGS);
	for (i = 0; i < (uint32_t)n; i++) {
		check_chain(r, &b->chain[i]);
		touch(r, &b->chain[i]);
	}
	back = random / 64 % 4 == 0 ? random / 256 % (n + 1) : 0;
	done = n - back;
	vringh_discard(&r->vr, b->chain + done, back);
	if (random / 65536 % 2)
		vringh_complete(&r->vr, b->chain, done);
	else
		for (i = 0; i < done; i++)
			vringh_complete(&r->vr, &b->chain[i], 1);
	CHECK(distance(r) == 0);
	vringh_need_notify(&r->vr);
	vringh_notify_enable(&r->vr);
	vringh_pending(&r->vr);
	vringh_notify_disable(&r->vr);
}

static void
dirty_on(struct raw *r)
{
	r->dirty.len = (HUGE_AT + HUGE_LEN) / GUEST_PAGE / 8;
	r->dirty.bitmap = calloc(1, r->dirty.len);
	CHECK(r->dirty.bitmap != NULL);
	if (vringh_set_dirty_log(&r->vr, &r->dirty) != 0) { /* at the top of the address space */
		free(r->dirty.bitmap);
		r->dirty.bitmap = NULL;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct raw r;
	struct fuzz_head head;
	pthread_t thread;
	uint64_t seed = 0;
	uint32_t i;

	if (size <= sizeof(head))
		return 0;
	memset(&r, 0, sizeof(r));
	memcpy(&head, data, sizeof(head));
	if (head.version != FUZZ_VERSION)
		return 0;
	r.data = data + sizeof(head);
	r.size = size - sizeof(head);
	for (i = 0; i < size; i++)
		seed = seed * 31 + data[i];
	r.seed = seed;
	guest_open(&r.g, &head, head.flags & FUZZ_PACKED);
	fill(&r);
	r.cfg = (struct vringh_config){
		.packed = r.g.packed,
		.event_idx = head.flags & FUZZ_EVENT_IDX,
		.indirect = head.flags & FUZZ_INDIRECT,
		.in_order = head.flags & FUZZ_IN_ORDER,
		.reads_only = head.flags & FUZZ_READS_ONLY,
		.size = r.g.head.size,
		.desc = r.g.area[AREA_DESC],
		.driver = r.g.area[AREA_DRIVER],
		.device = r.g.area[AREA_DEVICE],
		.mem = &r.g.space[0].mem,
		.desc_mem = head.area_kind[AREA_DESC] ? &r.g.space[1 + AREA_DESC].mem : NULL,
		.driver_mem = head.area_kind[AREA_DRIVER] ? &r.g.space[1 + AREA_DRIVER].mem : NULL,
		.device_mem = head.area_kind[AREA_DEVICE] ? &r.g.space[1 + AREA_DEVICE].mem : NULL,
		.state = head.state,
	};
	r.cfg.state.avail = r.cfg.state.used;
	r.batch = (struct vringh_batch){
		.chain = malloc(MAX_CHAINS * sizeof(*r.batch.chain)),
		.seg = malloc(MAX_SEGS * sizeof(*r.batch.seg)),
		.max_chains = MAX_CHAINS,
		.max_segs = MAX_SEGS,
	};
	CHECK(r.batch.chain != NULL && r.batch.seg != NULL);
	if (vringh_init(&r.vr, &r.cfg) == VRINGH_OK) {
		if (seed % 4 == 0)
			dirty_on(&r);
		CHECK(pthread_create(&thread, NULL, guest_thread, &r) == 0);
		while (!__atomic_load_n(&r.started, __ATOMIC_ACQUIRE))
			sched_yield();
		for (i = 0; i < ROUNDS; i++) {
			sched_yield();
			device_round(&r, fuzz_random(&seed));
		}
		__atomic_store_n(&r.stop, true, __ATOMIC_RELEASE);
		CHECK(pthread_join(thread, NULL) == 0);
	}
	free(r.batch.chain);
	free(r.batch.seg);
	free(r.dirty.bitmap);
	guest_close(&r.g);
	return 0;
}
