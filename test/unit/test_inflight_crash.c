/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A device that dies between any two stores to the ring or to the in-flight region, and a
 * successor that goes on from the region: every chain comes back exactly once, by whom it was
 * worked on. The library's accessors are hooked; a death is a jump out of it. Runs on the test's
 * only thread.
 */

#include <stdio.h>

#include "harness.h"
#include "vringh_access.h"

#define MAX_SIZE  32
#define MAX_CHAIN 512 /* that a run posts */

/* Which stores come only at the end of a call: what would break if the order were another. */
enum late { LATE_NONE, LATE_REGION, LATE_RING };

struct rig {
	struct queue *q;
	uint8_t *region;
	size_t len;
	uint16_t *resubmit;
	struct vringh_inflight in;
	bool tracked;
	bool busy;	/* the driver goes on while there is no device */
	uint32_t looks; /* of librte_vhost, before each device begins */
	bool rewinds;	/* puts what comes again back into the ring */
	enum late late;
	const char *ops;
	char *fault;

	/* What the driver knows. Chains are numbered, the number is in their bytes. */
	int posted, nb_back;
	bool back[MAX_CHAIN];
	uint8_t kind[MAX_CHAIN];

	/* What the devices did: the last one fetched, and those in flight when one dies. */
	int last, handed, before;
	int nb_again;
	uint32_t deaths, resumed;
	struct vringh_chain held[MAX_SIZE];
	int number[MAX_SIZE];
	uint32_t seq[MAX_SIZE];
	uint32_t nb_held, next_seq;
};

struct word {
	void *p;
	uint64_t v;
	size_t len;
};

static struct {
	struct rig *rig;
	const struct vringh_accessors *base;
	enum late late; /* not while a device begins */
	bool armed;
	uint32_t left;
	struct word later[1024];
	uint32_t nb_later;
} hook;

static jmp_buf dead;

static void
store_now(void *p, uint64_t v, size_t len)
{
	if (hook.armed && hook.left-- == 0)
		longjmp(dead, 1);
	if (len == 1)
		hook.base->store8(p, v);
	else if (len == 2)
		hook.base->store16(p, v);
	else if (len == 4)
		hook.base->store32(p, v);
	else
		hook.base->store64(p, v);
}

static void
store(void *p, uint64_t v, size_t len)
{
	const struct rig *r = hook.rig;
	bool region = (uintptr_t)p - (uintptr_t)r->region < r->len;

	if (hook.late == (region ? LATE_REGION : LATE_RING) && hook.nb_later < DIM(hook.later)) {
		hook.later[hook.nb_later++] = (struct word){p, v, len};
		return;
	}
	store_now(p, v, len);
}

/* A call into the library ended. */
static void
settle(void)
{
	uint32_t i;

	for (i = 0; i < hook.nb_later; i++)
		store_now(hook.later[i].p, hook.later[i].v, hook.later[i].len);
	hook.nb_later = 0;
}

#define STORE(bits) \
	static void store##bits(void *p, uint##bits##_t v) \
	{ \
		store(p, v, bits / 8); \
	}

STORE(8)
STORE(16)
STORE(32)
STORE(64)

#define FAULT(r, ...) \
	do { \
		if ((r)->fault == NULL && asprintf(&(r)->fault, __VA_ARGS__) < 0) \
			abort(); \
	} while (0)

/* Kinds of chains: read only, and such as tell who worked on them. */
static const struct mock_buf r1[] = {{.len = 8}};
static const struct mock_buf r1w1[] = {{.len = 8}, {.len = 8, .write = true}};
static const struct mock_buf r2w2[] = {
	{.len = 3}, {.len = 5}, {.len = 2, .write = true}, {.len = 6, .write = true}};
static const struct {
	const struct mock_buf *buf;
	unsigned int nb;
	bool indirect;
} kinds[] = {{r1, 1, false}, {r1w1, 2, false}, {r2w2, 4, false}, {r1w1, 2, true}, {r2w2, 4, true}};

static void
post_some(struct rig *r, uint32_t n)
{
	struct queue *q = r->q;

	while (n-- > 0 && r->posted < MAX_CHAIN) {
		unsigned int kind = (r->posted * 7 + r->posted / 5) % DIM(kinds);
		uint8_t bytes[16];
		uint64_t number = r->posted;
		int id;

		if (kinds[kind].nb > q->v.size || (kinds[kind].indirect && !q->v.indirect))
			kind = 0;
		id = mock_post(&q->drv, kinds[kind].buf, kinds[kind].nb,
			kinds[kind].indirect ? MOCK_INDIRECT : 0, number);
		if (id < 0)
			return;
		memset(bytes, 0xee, sizeof(bytes));
		memcpy(bytes, &number, sizeof(number));
		mock_mem_write(&q->mem, mock_buf_addr(&q->drv, id, 0), bytes, sizeof(bytes));
		r->kind[r->posted++] = kind;
		mock_publish(&q->drv);
	}
}

static void
collect(struct rig *r)
{
	struct queue *q = r->q;
	struct mock_used used;
	int n;

	while ((n = mock_collect(&q->drv, &used, 1)) > 0) {
		bool writes = kinds[r->kind[used.token]].nb > 1;
		uint64_t number;

		mock_mem_read(&q->mem, mock_buf_addr(&q->drv, used.id, 8), &number, 8);
		if (r->back[used.token])
			FAULT(r, "chain %ju came back twice", (uintmax_t)used.token);
		if (used.len != (writes ? 8 : 0) || (writes && number != used.token))
			FAULT(r, "chain %ju came back, but nobody worked on it",
				(uintmax_t)used.token);
		r->back[used.token] = true;
		r->nb_back++;
	}
	if (n < 0)
		FAULT(r, "the driver found: %s", q->drv.fault);
}

static void
fetch_some(struct rig *r, uint32_t max)
{
	struct queue *q = r->q;
	int n, i;

	if (r->nb_held == 0)
		q->batch.nb_chains = q->batch.nb_segs = 0;
	n = vringh_fetch(&q->vr, &q->batch, max);
	settle();
	if (n < 0)
		FAULT(r, "fetch: %s", vringh_strerror(n));
	for (i = 0; i < n && r->fault == NULL; i++) {
		struct vringh_chain *chain = &q->batch.chain[q->batch.nb_chains - n + i];
		struct vringh_iter from = vringh_iter_read(&q->vr, chain);
		struct vringh_iter to = vringh_iter_write(&q->vr, chain);
		uint64_t number = UINT64_MAX;

		vringh_pull(&from, &number, 8);
		chain->written = vringh_push(&to, &number, 8);
		if (chain->error != VRINGH_OK || number >= (uint64_t)r->posted) {
			FAULT(r, "fetched what nobody posted: %s", vringh_strerror(chain->error));
			return;
		}
		if (r->back[number])
			FAULT(r, "chain %ju came again after it was used", (uintmax_t)number);
		if ((int)number <= r->last)
			FAULT(r, "chain %ju after %d", (uintmax_t)number, r->last);
		if (chain->again ? r->nb_again-- == 0 : r->nb_again > 0)
			FAULT(r, "chain %ju: wrong number of chains that come again",
				(uintmax_t)number);
		if (!chain->again && (int)number < r->before)
			FAULT(r, "chain %ju does not say that it comes again", (uintmax_t)number);
		r->last = number;
		if ((int)number >= r->handed)
			r->handed = number + 1;
		r->number[r->nb_held] = number;
		r->seq[r->nb_held] = r->next_seq++;
		r->held[r->nb_held++] = *chain;
	}
}

/* From a place in held[] on. */
static void
complete_some(struct rig *r, uint32_t first, uint32_t n)
{
	struct vringh_chain chain[MAX_SIZE];
	uint32_t left = r->nb_held - first - n;

	memcpy(chain, &r->held[first], n * sizeof(chain[0]));
	memmove(&r->held[first], &r->held[first + n], left * sizeof(chain[0]));
	memmove(&r->number[first], &r->number[first + n], left * sizeof(r->number[0]));
	memmove(&r->seq[first], &r->seq[first + n], left * sizeof(r->seq[0]));
	r->nb_held -= n;
	vringh_complete(&r->q->vr, chain, n);
	settle();
}

/* The youngest, none of which has a younger one that is completed. */
static void
discard_some(struct rig *r, uint32_t max)
{
	uint32_t n = 0;

	while (n < max && n < r->nb_held && r->seq[r->nb_held - n - 1] == r->next_seq - n - 1)
		n++;
	if (n == 0)
		return;
	r->nb_held -= n;
	r->next_seq -= n;
	r->last = r->number[r->nb_held] - 1;
	if (r->handed > r->before)
		r->handed = r->last + 1 > r->before ? r->last + 1 : r->before;
	for (max = 0; max < n; max++)
		r->nb_again += r->held[r->nb_held + max].again;
	vringh_discard(&r->q->vr, &r->held[r->nb_held], n);
	settle();
}

static void
step(struct rig *r, char op, uint32_t n)
{
	uint32_t most = n < r->nb_held ? n : r->nb_held;

	if (op == 'p')
		post_some(r, n);
	else if (op == 'f')
		fetch_some(r, n);
	else if (op == 'd')
		discard_some(r, n);
	else if (op == 'g')
		collect(r);
	else if (op == 'C' && !r->q->v.in_order)
		complete_some(r, r->nb_held - most, most);
	else
		complete_some(r, 0, most);
}

/* Offsets in the region as librte_vhost has it, in bytes. */
enum {
	LIB_VERSION = 8,
	LIB_FREE_HEAD = 12,
	LIB_OLD_FREE_HEAD = 14,
	LIB_USED = 16,
	LIB_OLD_USED = 18,
	LIB_USED_WRAP = 20,
	LIB_OLD_USED_WRAP = 21,
	LIB_LAST = 12,
	LIB_SPLIT_USED = 14,
};

static uint16_t *
half(struct rig *r, size_t at)
{
	return (uint16_t *)(r->region + at);
}

/*
 * What librte_vhost does to a region on SET_VRING_KICK, before a device is told of it: a region
 * of version 0 becomes one of version 1; in any other the last batch is resolved, taken for one
 * chain.
 */
static void
library_looks(struct rig *r)
{
	size_t entry = r->q->v.packed ? 32 : 16, head = entry;
	uint16_t old, used;

	if (*half(r, LIB_VERSION) == 0) {
		*half(r, LIB_VERSION) = 1;
		return;
	}
	if (!r->q->v.packed) {
		used = r->q->drv.used_ring->idx;
		if (*half(r, LIB_SPLIT_USED) == used)
			return;
		r->region[head + *half(r, LIB_LAST) % r->q->v.size * entry] = 0;
		*half(r, LIB_SPLIT_USED) = used;
		return;
	}
	used = *half(r, LIB_USED);
	old = *half(r, LIB_OLD_USED);
	if (used == old)
		return;
	if (r->region[head + old % r->q->v.size * entry] == 0) {
		*half(r, LIB_OLD_USED) = used;
		r->region[LIB_OLD_USED_WRAP] = r->region[LIB_USED_WRAP];
		*half(r, LIB_OLD_FREE_HEAD) = *half(r, LIB_FREE_HEAD);
	} else {
		*half(r, LIB_USED) = old;
		r->region[LIB_USED_WRAP] = r->region[LIB_OLD_USED_WRAP];
		*half(r, LIB_FREE_HEAD) = *half(r, LIB_OLD_FREE_HEAD);
	}
}

/* A device begins, with what a front-end knows: of a packed ring where it once began. */
static void
begin(struct rig *r)
{
	struct queue *q = r->q;
	uint16_t start = q->drv.cfg.start.used;
	uint32_t i;
	int n;

	if (!q->v.packed)
		start = q->drv.used_ring->idx;
	else if (!r->tracked)
		start = mock_used_position(&q->drv, 0);
	q->cfg.state = (struct vringh_state){.avail = start, .used = start};
	memset(&q->vr, 0xa5, sizeof(q->vr));
	assert_int_equal(vringh_init(&q->vr, &q->cfg), VRINGH_OK);
	r->nb_held = 0;
	r->nb_again = 0;
	r->last = -1;
	r->before = r->tracked ? r->handed : 0;
	hook.late = LATE_NONE;
	if (!r->tracked)
		return;
	for (i = 0; i < r->looks; i++)
		library_looks(r);
	memset(r->resubmit, 0xa5, q->v.size * sizeof(*r->resubmit));
	memset(&r->in, 0xa5, sizeof(r->in));
	n = vringh_set_inflight(&q->vr, &r->in, r->region, r->len, r->resubmit);
	hook.late = r->late;
	if (n < 0)
		FAULT(r, "the region is refused");
	r->nb_again = n;
	r->resumed += n > 0;
	if (n < 0 || !r->rewinds)
		return;
	if (q->v.packed && q->area[0]->view.kind == VRINGH_MEM_IOMEM) {
		if (n > 0 && vringh_rewind(&q->vr) != -VRINGH_E_INFLIGHT)
			FAULT(r, "a ring in a window is restored");
		return;
	}
	if (vringh_rewind(&q->vr) != 0)
		FAULT(r, "what was in flight is not in the ring");
	settle();
	r->nb_again = r->before = 0;
	if (vringh_get_state(&q->vr).avail != vringh_get_state(&q->vr).used)
		FAULT(r, "something is still in flight");
}

/* All the rest of what is to be done, and nothing is left over. */
static void
finish(struct rig *r)
{
	struct queue *q = r->q;
	uint32_t tries;

	for (tries = 0; tries < 2 * q->v.size + 4 && r->fault == NULL; tries++) {
		complete_some(r, 0, r->nb_held);
		collect(r);
		if (r->fault == NULL)
			fetch_some(r, q->v.size);
	}
	if (r->nb_back != r->posted)
		FAULT(r, "%d of %d chains came back", r->nb_back, r->posted);
	if (r->nb_held > 0 || r->nb_again > 0)
		FAULT(r, "%u chains too many", r->nb_held);
	if (vringh_get_state(&q->vr).used != mock_used_position(&q->drv, 0) ||
		vringh_get_state(&q->vr).avail != mock_used_position(&q->drv, 0))
		FAULT(r, "the ring stands elsewhere");
}

/* What the device has posted into windows, but not flushed, arrives or not. */
static void
link_ends(struct mock_link *link, bool arrives)
{
	uint32_t i;

	for (i = 0; i < link->nb_windows; i++) {
		struct mock_link_window *w = &link->window[i];

		if (arrives)
			link->io.flush(link, w->device, w->len);
		memset(w->state, 0, w->len);
	}
}

/*
 * Carry out operations, each a letter and a digit, with a death at each of these stores; counted
 * from the last one on. Returns what went wrong, to be freed, or NULL.
 */
static char *
run(struct rig *r, const char *ops, const uint32_t *death, uint32_t nb_deaths)
{
	struct vringh_accessors accessors = *vringh_accessors;
	struct queue *q = r->q;

	hook.base = vringh_accessors;
	hook.rig = r;
	accessors.store8 = store8;
	accessors.store16 = store16;
	accessors.store32 = store32;
	accessors.store64 = store64;
	memset(r->region, 0, r->len);
	link_ends(&q->link, false);
	queue_rewind(q, q->v.start);
	memset(r->back, 0, sizeof(r->back));
	r->ops = ops;
	r->fault = NULL;
	r->posted = r->nb_back = r->handed = r->deaths = r->resumed = r->next_seq = 0;
	hook.nb_later = 0;
	vringh_accessors = &accessors;
	if (setjmp(dead) != 0) {
		/* What the dead device held back is lost with it. */
		hook.nb_later = 0;
		link_ends(&q->link, r->busy);
		r->deaths++;
		if (r->busy) {
			collect(r);
			post_some(r, q->v.size);
		}
	}
	hook.armed = r->deaths < nb_deaths;
	if (hook.armed)
		hook.left = death[r->deaths];
	if (r->fault == NULL)
		begin(r);
	while (r->fault == NULL && *r->ops != '\0') {
		const char *op = r->ops;

		r->ops += 2;
		step(r, op[0], op[1] - '0');
	}
	finish(r);
	vringh_accessors = hook.base;
	return r->fault;
}

static struct rig *
rig_open(const struct variant *v)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	r->q = queue_open(v);
	r->q->link.loses = true; /* with a device that dies before a flush */
	r->tracked = true;
	r->len = vringh_inflight_size(v->packed, v->size);
	r->region = malloc(r->len);
	r->resubmit = malloc(v->size * sizeof(*r->resubmit));
	assert_true(r->region != NULL && r->resubmit != NULL);
	return r;
}

static void
rig_close(struct rig *r)
{
	queue_close(r->q);
	free(r->region);
	free(r->resubmit);
	free(r->fault);
	free(r);
}

static const char *const scenarios[] = {
	"p1f1c1g1p1f1c1g1p1f1c1g1p1f1c1g1p1f1c1g1",
	"p4f4c4g4p6f6c6g4p3f9c9g4",
	"p6f4C1f2C2c1g4p4f3C1c1f2c2p9f9C2C2c1g9",
	"p5f3C3p3f9C2g4c1p2C1f3g1C3c9",
	"p4f3d2f1d2f4c2d1f3c2d9f9g4p4f2c1d1f9c9",
};

/* All kinds of rings, small, and memories in turns. */
static struct variant
variant_at(unsigned int i, uint32_t size)
{
	struct variant v =
		format_variant(i % NB_FORMATS, (i / NB_FORMATS * 3 + i) % MEM_APART, size);

	v.indirect = i & 4;
	v.event_idx = i & 8;
	v.start = near_end(&v, i % 3);
	return v;
}
#define NB_VARIANTS 16

static const uint32_t sizes[2][4] = {{1, 2, 4, 16}, {1, 3, 5, 16}};

static void
run_right(struct rig *r, const char *ops, const uint32_t *death, uint32_t nb_deaths)
{
	char *fault = run(r, ops, death, nb_deaths);

	if (fault != NULL)
		fail_msg("%s %s %u%s, '%s', death %u: %s",
			format_name(r->q->v.packed + 2 * r->q->v.in_order), mem_name(r->q->v.mem),
			r->q->v.size, r->busy ? " busy" : "", ops, r->deaths, fault);
}

/* One death, at each store in turn. */
static void
every_store(struct rig *r, const char *ops)
{
	uint32_t n, resumed = 0;

	for (n = 0; n == 0 || r->deaths > 0; n++) {
		run_right(r, ops, &n, 1);
		resumed += r->resumed;
	}
	assert_true(resumed > 0);
}

static void
dies_anywhere(void **state)
{
	unsigned int i, k, s, busy;

	(void)state;
	for (i = 0; i < NB_VARIANTS; i++)
		for (k = 0; k < DIM(sizes[0]); k++) {
			struct variant v = variant_at(i + k, sizes[(i + k) & 1][k]);
			struct rig *r = rig_open(&v);

			for (s = 0; s < DIM(scenarios); s++)
				for (busy = 0; busy < 2; busy++) {
					r->busy = busy;
					every_store(r, scenarios[s]);
				}
			rig_close(r);
		}
}

/* Nor does it matter that librte_vhost has been at the region, once or more often. */
static void
library_looked(void **state)
{
	unsigned int i, s;

	(void)state;
	for (i = 0; i < NB_VARIANTS; i++) {
		struct variant v = variant_at(i, sizes[i & 1][2 + i / NB_FORMATS % 2]);
		struct rig *r = rig_open(&v);

		for (s = 0; s < DIM(scenarios); s++) {
			r->looks = 1 + (i + s) % 2;
			r->busy = s & 1;
			every_store(r, scenarios[s]);
		}
		rig_close(r);
	}
}

/* Devices that complete in order, and put back what was in flight; they die there, too. */
static void
in_order_rewinds(void **state)
{
	static const char *const ordered[] = {"p4f4c4g4p6f6c6g4p3f9c9g4",
		"p5f3c2p3f9c3g4c1p2c2f3g1c3c9", "p4f3d2f1d2f4c2d1f3c2d9f9g4p4f2c1d1f9c9"};
	unsigned int i, k, s, busy;

	(void)state;
	for (i = 0; i < NB_VARIANTS; i++)
		for (k = 0; k < DIM(sizes[0]); k++) {
			struct variant v = variant_at(i + k, sizes[(i + k) & 1][k]);
			struct rig *r = rig_open(&v);
			uint32_t death[2], resumed = 0;

			r->rewinds = true;
			for (s = 0; s < DIM(ordered); s++)
				for (busy = 0; busy < 2; busy++) {
					r->busy = busy;
					every_store(r, ordered[s]);
				}
			/* A few stores after the first death the successor is rewinding. */
			for (death[0] = 0; death[0] == 0 || r->deaths > 0; death[0] += 3)
				for (death[1] = 0; death[1] < 40; death[1]++) {
					run_right(r, ordered[0], death, 2);
					resumed += r->resumed;
					if (r->deaths < 2)
						break;
				}
			assert_true(resumed > 0);
			rig_close(r);
		}
}

/* The successor dies, too, wherever it is: also while it takes up what was left. */
static void
dies_twice(void **state)
{
	static const char ops[] = "p5f4C2g1f2p2d1C1f9c9";
	unsigned int i;

	(void)state;
	for (i = 0; i < NB_FORMATS * 2; i++) {
		struct variant v = variant_at(i, i & 1 ? 5 : 4);
		struct rig *r = rig_open(&v);
		uint32_t death[3], first;

		for (first = 0; first == 0 || r->deaths > 0; first++)
			for (death[1] = 0; death[1] == 0 || r->deaths > 1; death[1]++) {
				death[0] = first;
				death[2] = death[1] * 7 % 11;
				r->busy = (first + death[1]) & 1;
				run_right(r, ops, death, 3);
				if (r->deaths == 0)
					break;
			}
		rig_close(r);
	}
}

/* Any operations, with deaths at any time. */
static void
dies_at_random(void **state)
{
	unsigned int i;
	uint64_t seed;

	(void)state;
	for (i = 0; i < 4 * NB_VARIANTS; i++) {
		struct variant v = variant_at(i, sizes[i & 1][i / 16 % 4]);
		struct rig *r = rig_open(&v);

		for (seed = i * 64; seed < i * 64 + 64; seed++) {
			uint64_t s = seed;
			uint32_t death[16], k;
			char ops[2 * 60 + 1] = "";

			for (k = 0; k < 60; k++) {
				ops[2 * k] = "pppfffcccCCgd"[mock_random(&s) % 13];
				ops[2 * k + 1] = '1' + mock_random(&s) % 9;
			}
			for (k = 0; k < DIM(death); k++)
				death[k] = mock_random(&s) % 80;
			r->busy = mock_random(&s) & 1;
			run_right(r, ops, death, DIM(death));
		}
		rig_close(r);
	}
}

/* Controls: with the stores in another order, and with no tracking, chains are lost or doubled. */
static void
order_matters(void **state)
{
	static const struct {
		enum late late;
		bool tracked;
	} control[] = {{LATE_REGION, true}, {LATE_RING, true}, {LATE_NONE, false}};
	unsigned int i, c;

	(void)state;
	for (i = 0; i < NB_FORMATS; i++)
		for (c = 0; c < DIM(control); c++) {
			struct variant v = format_variant(i, VRINGH_MEM_REGION, 16);
			struct rig *r;
			uint32_t n, faults = 0;

			/* In order, used entries alone tell what was in flight. */
			if (v.in_order && !control[c].tracked)
				continue;
			r = rig_open(&v);
			r->late = control[c].late;
			r->tracked = control[c].tracked;
			run_right(r, scenarios[2], NULL, 0);
			for (n = 0; n == 0 || r->deaths > 0; n++) {
				faults += run(r, scenarios[2], &n, 1) != NULL;
				free(r->fault);
				r->fault = NULL;
			}
			assert_true(faults > 0);
			rig_close(r);
		}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(dies_anywhere),
		cmocka_unit_test(library_looked),
		cmocka_unit_test(in_order_rewinds),
		cmocka_unit_test(dies_twice),
		cmocka_unit_test(dies_at_random),
		cmocka_unit_test(order_matters),
	};

	return run_group("inflight crash", NULL, 0, tests, DIM(tests));
}
