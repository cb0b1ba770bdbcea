/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Seeds: the mock driver works on a target's memory, what it changes there becomes records, and
 * the device's calls are carried out between, with all their checks. Runs on any one thread.
 */

#include <string.h>

#include "fuzz_ring.h"
#include "fuzz_seeds.h"
#include "mock_driver.h"

#define NB_BUFS	 16
#define MAX_BUFS 4
#define ROUNDS	 8

enum { /* what happens beside plain traffic */
	S_LOG = 1,
	S_MOVE = 2,
	S_DISCARD = 4,
	S_RELOAD = 8,
	S_BAD = 16,
	S_MISS = 32,
	S_RAW = 64, /* nothing is fetched: memory as the driver left it */
};

struct recorder {
	struct fuzz_head head;
	struct fuzz_op op[FUZZ_MAX_OPS];
	uint32_t nb_ops;
	struct fuzz f;
	struct mock_mem mem[1 + AREA_MAX];
	struct mock_driver d;
	uint64_t seed, token;
	uint32_t features;
};

static uint32_t
pick(struct recorder *r, uint32_t n)
{
	return fuzz_random(&r->seed) % n;
}

static void
push_op(struct recorder *r, struct fuzz_op op)
{
	if (r->nb_ops < FUZZ_MAX_OPS)
		r->op[r->nb_ops] = op;
	r->nb_ops++;
}

/* The device's part: recorded and done. */
static void
step(struct recorder *r, struct fuzz_op op)
{
	push_op(r, op);
	fuzz_run(&r->f, &op);
}

static uint32_t
address_code(const struct recorder *r, uint64_t addr)
{
	uint64_t off = addr - r->f.g.space[0].base;

	if (off < 1u << AT_SHIFT)
		return AT(AT_BASE, off);
	if (addr >= HUGE_AT && addr < HUGE_AT + HUGE_LEN)
		return AT(AT_HUGE, (addr - HUGE_AT) / 16);
	return AT(AT_TOP, UINT64_MAX - addr);
}

static void
record_desc(struct recorder *r, uint8_t opcode, uint32_t i, const uint8_t *raw)
{
	struct fuzz_op op = {.op = opcode, .b = i};
	struct vring_packed_desc p;
	struct vring_desc s;

	memcpy(&p, raw, sizeof(p));
	memcpy(&s, raw, sizeof(s));
	op.d = address_code(r, s.addr);
	op.c = s.len;
	op.e = r->f.cfg.packed ? p.id : s.next;
	op.f = r->f.cfg.packed ? p.flags : s.flags;
	if (r->f.cfg.packed && opcode == OP_DESC) {
		uint16_t both = fuzz_bits(&r->f, i) |
			(1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED);

		if ((p.flags & both) == fuzz_bits(&r->f, i))
			op.a = OP_DESC_NEW;
	}
	push_op(r, op);
}

/* Words of an area that changed, after heads that were made available have become records. */
static void
record_words(struct recorder *r, int area, const uint8_t *old, const uint8_t *now)
{
	uint32_t size = r->f.cfg.size, at, i;
	uint16_t from = 0, to = 0, v;

	if (area == AREA_DRIVER && !r->f.cfg.packed) {
		memcpy(&from, old + 2, sizeof(from));
		memcpy(&to, now + 2, sizeof(to));
	}
	for (i = from; i != to; i = (uint16_t)(i + 1)) {
		memcpy(&v, now + 4 + 2 * (i % size), sizeof(v));
		push_op(r, (struct fuzz_op){.op = OP_AVAIL, .a = 1, .e = v});
	}
	for (at = 0; at + 2 <= r->f.g.area_len[area]; at += 2) {
		uint16_t ahead = (at - 4) / 2 - from % size;

		if (memcmp(old + at, now + at, 2) == 0 ||
			(from != to &&
				(at == 2 ||
					(at >= 4 && at < 4 + 2 * size &&
						ahead % size < (uint16_t)(to - from)))))
			continue;
		memcpy(&v, now + at, sizeof(v));
		push_op(r,
			(struct fuzz_op){.op = OP_POKE,
				.a = 1,
				.c = v,
				.d = AT(AT_AREA, (uint32_t)area << 24 | at)});
	}
}

/* What the driver has written since guest_save(). */
static void
record_guest(struct recorder *r)
{
	struct guest *g = &r->f.g;
	struct guest_region *e = guest_find(&g->space[0], g->tables);
	uint64_t at;
	int area;

	for (at = 0; e != NULL && at < GUEST_TABLES_LEN; at += 16) {
		uint64_t off = g->tables - e->r.iova + at;

		if (memcmp(e->copy + off, e->r.host + off, 16) != 0)
			record_desc(r, OP_TABLE, at / 16, e->r.host + off);
	}
	for (area = 0; area < AREA_MAX; area++) {
		e = guest_find(guest_area(g, area), g->area[area]);
		at = g->area[area] - e->r.iova;
		if (area != AREA_DESC) {
			record_words(r, area, e->copy + at, e->r.host + at);
			continue;
		}
		for (; at < g->area[area] - e->r.iova + g->area_len[area]; at += 16)
			if (memcmp(e->copy + at, e->r.host + at, 16) != 0)
				record_desc(r, OP_DESC, (at - (g->area[area] - e->r.iova)) / 16,
					e->r.host + at);
	}
}

/* The mock sees the target's memory where it lies now. */
static void
share(struct recorder *r)
{
	uint32_t k, i;

	for (k = 0; k < DIM(r->mem); k++) {
		const struct guest_space *s = &r->f.g.space[k];

		r->mem[k].nb_regions = s->nb;
		for (i = 0; i < s->nb; i++)
			r->mem[k].region[i] = s->region[i].r;
	}
}

/* Alter a posted chain, with so many entries in its table, in one of the ways that are refused. */
static void
spoil(struct recorder *r, uint16_t id, uint32_t nb_entries)
{
	struct mock_desc m = mock_get_desc(&r->d, id, 0), entry;

	switch (pick(r, 7)) {
	case 0:
		m.len = UINT32_MAX;
		break;
	case 1:
		m.addr = UINT64_MAX - 3;
		break;
	case 2:
		m.flags ^= VRING_DESC_F_INDIRECT;
		break;
	case 3: /* the driver knows how much can be written */
		m.len = m.flags & VRING_DESC_F_WRITE ? 0 : m.len + 8;
		break;
	case 4:
		m.len = 0;
		break;
	case 5: /* a byte too far; where that is a miss nothing would come behind it */
		if (r->head.kind != VRINGH_MEM_IOTLB)
			m.addr = r->f.g.bufs + GUEST_BUFS_LEN + 1 - m.len;
		break;
	case 6: /* split: a table's entry that goes on just behind the last one */
		if (nb_entries == 0 || nb_entries == r->d.cfg.table_entries)
			break;
		entry = (struct mock_desc){.addr = r->f.g.bufs, .len = 1};
		mock_set_entry(&r->d, id, nb_entries, &entry);
		entry = mock_get_entry(&r->d, id, 0);
		entry.flags |= VRING_DESC_F_NEXT;
		entry.ref = nb_entries;
		mock_set_entry(&r->d, id, 0, &entry);
		break;
	}
	mock_set_desc(&r->d, id, 0, &m);
}

static void
post(struct recorder *r)
{
	uint32_t size = r->f.cfg.size, entries = r->d.cfg.table_entries, flags = 0, i;
	uint32_t most = size < MAX_BUFS ? size : MAX_BUFS;
	uint32_t nb = 1 + pick(r, most), writable = pick(r, nb + 1);
	bool huge = r->head.flags & FUZZ_HUGE && pick(r, 2);
	struct mock_buf buf[MAX_BUFS] = {{0}};
	int id;

	if (huge && pick(r, 2)) { /* two fit, three are too long together */
		nb = most;
		writable = pick(r, 2) * nb;
	}
	for (i = 0; i < nb; i++) {
		buf[i].len = pick(r, 8) == 0 ? 0 : 1 + pick(r, 8192 / NB_BUFS / MAX_BUFS);
		buf[i].write = !r->f.cfg.reads_only && i >= writable;
		buf[i].fixed = huge || pick(r, 4) == 0;
		/* Across a border of pages. */
		buf[i].iova = r->f.g.bufs + GUEST_PAGE - buf[i].len / 2;
		if (huge) {
			buf[i].iova = HUGE_AT + 16 * pick(r, 1000);
			buf[i].len = 0x70000000;
		}
	}
	if (r->f.cfg.indirect && nb <= entries && pick(r, 2) == 0)
		flags = MOCK_INDIRECT | (pick(r, 2) ? MOCK_SCATTER : 0);
	id = mock_post(&r->d, buf, nb, flags, r->token++);
	if (id >= 0 && r->features & S_BAD && pick(r, 2) == 0)
		spoil(r, id, flags & MOCK_INDIRECT ? nb : 0);
}

static void
driver_part(struct recorder *r, uint32_t nb_chains)
{
	struct mock_used used[16];
	int n;

	while ((n = mock_collect(&r->d, used, DIM(used))) > 0)
		;
	if (n < 0) {
		fprintf(stderr, "seeds: the driver found: %s\n", r->d.fault);
		abort();
	}
	guest_save(&r->f.g);
	while (nb_chains-- > 0)
		post(r);
	mock_publish(&r->d);
	if (pick(r, 2))
		mock_events_enable(&r->d, pick(r, 3));
	else
		mock_events_disable(&r->d);
	record_guest(r);
}

/* Buffers vanish from the translation table: once they come back, once they do not. */
static void
miss_part(struct recorder *r)
{
	uint32_t code = address_code(r, r->f.g.bufs);

	step(r, (struct fuzz_op){.op = OP_UNMAP, .c = 1, .d = code});
	step(r, (struct fuzz_op){.op = OP_PULL, .e = 40});
	step(r, (struct fuzz_op){.op = OP_FETCH, .a = 2});
	step(r, (struct fuzz_op){.op = OP_REFUSE});
	step(r, (struct fuzz_op){.op = OP_FETCH, .a = 2});
	step(r, (struct fuzz_op){.op = OP_MAP, .e = 3, .c = 8192, .d = code});
	step(r, (struct fuzz_op){.op = OP_FETCH, .a = 2});
	step(r, (struct fuzz_op){.op = OP_SET_MEM, .a = SET_MEM_RESTORE});
	share(r);
	CHECK(mock_remap(&r->d));
}

static void
device_part(struct recorder *r, uint32_t round)
{
	if (r->features & S_MISS && round % 3 == 1)
		miss_part(r);
	if (r->features & S_LOG && round % 4 == 1)
		step(r, (struct fuzz_op){.op = OP_LOG, .a = 1, .c = 0x3000, .d = 0x5000});
	step(r, (struct fuzz_op){.op = OP_DISABLE});
	/* A bad address is a miss there, and has to be got over. */
	if (r->features & S_BAD && r->head.kind == VRINGH_MEM_IOTLB)
		step(r, (struct fuzz_op){.op = OP_REFUSE});
	step(r, (struct fuzz_op){.op = OP_FETCH, .a = 1 + pick(r, 8)});
	if (r->features & S_DISCARD) {
		step(r, (struct fuzz_op){.op = OP_DISCARD, .b = 1});
		step(r, (struct fuzz_op){.op = OP_FETCH, .a = 8});
	}
	if (r->features & S_MOVE && round % 3 == 2) {
		step(r, (struct fuzz_op){.op = OP_SET_MEM, .a = SET_MEM_MOVE});
		share(r);
		CHECK(mock_remap(&r->d));
	}
	step(r, (struct fuzz_op){.op = OP_PULL, .e = 12, .c = 100});
	step(r, (struct fuzz_op){.op = OP_PUSH, .e = 12, .c = 100, .d = round});
	step(r, (struct fuzz_op){.op = OP_COPY, .b = 0, .e = 1, .c = 100});
	if (r->features & S_RELOAD && round % 2)
		step(r, (struct fuzz_op){.op = OP_RELOAD, .a = pick(r, 2)});
	if (r->head.flags & FUZZ_INFLIGHT && round % 2) {
		step(r, (struct fuzz_op){.op = OP_RELOAD, .a = RELOAD_FORGET});
		step(r, (struct fuzz_op){.op = OP_FETCH, .a = 8});
	}
	step(r,
		(struct fuzz_op){.op = OP_COMPLETE,
			.a = pick(r, 2) ? OP_COMPLETE_FULL : 0,
			.b = r->f.nb_held - (r->f.nb_held > 1 ? pick(r, 2) : 0),
			.c = 7 + round});
	step(r, (struct fuzz_op){.op = OP_NEED_NOTIFY});
	step(r, (struct fuzz_op){.op = OP_ENABLE});
}

/* Regions with no more than the areas, and no more rights than the device needs. */
static void
cut_exactly(struct fuzz_head *head, const struct guest *g, bool own_areas)
{
	uint64_t base = g->space[0].base;
	uint16_t at[] = {g->area[AREA_DRIVER] - base,
		g->area[AREA_DRIVER] - base + g->area_len[AREA_DRIVER], g->area[AREA_DEVICE] - base,
		g->area[AREA_DEVICE] - base + g->area_len[AREA_DEVICE], g->tables - base,
		g->bufs - base};
	uint8_t how[] = {g->packed ? 0 : FUZZ_REGION_NO_WRITE, FUZZ_REGION_NO_WRITE,
		FUZZ_REGION_HOLE, FUZZ_REGION_NO_READ, FUZZ_REGION_HOLE, FUZZ_REGION_NO_WRITE};

	if (own_areas)
		how[0] = how[1] = how[3] = FUZZ_REGION_HOLE;
	memcpy(head->cut, at, sizeof(at));
	memcpy(head->region, how, sizeof(how));
}

static void
mock_start(struct recorder *r, bool own_areas)
{
	uint32_t size = r->head.size, entries = GUEST_TABLES_LEN / 16 / size;
	const struct guest *g = &r->f.g;
	struct mock_config mc = {
		.packed = g->packed,
		.event_idx = r->f.cfg.event_idx,
		.in_order = r->f.cfg.in_order,
		.size = size,
		.desc = g->area[AREA_DESC],
		.driver = g->area[AREA_DRIVER],
		.device = g->area[AREA_DEVICE],
		.desc_mem = own_areas ? &r->mem[1 + AREA_DESC] : NULL,
		.driver_mem = own_areas ? &r->mem[1 + AREA_DRIVER] : NULL,
		.device_mem = own_areas ? &r->mem[1 + AREA_DEVICE] : NULL,
		.bufs = g->bufs,
		.buf_len = GUEST_BUFS_LEN / NB_BUFS,
		.nb_bufs = NB_BUFS,
		.tables = g->tables,
		.table_entries = entries < size ? entries : size,
		.start = r->head.state,
	};

	share(r);
	guest_save(&r->f.g);
	CHECK(mock_init(&r->d, &r->mem[0], &mc));
	record_guest(r);
}

/* Memory as it is. */
static void
emit_memory(struct recorder *r, const char *name, seed_fn fn, void *arg)
{
	static uint8_t out[sizeof(struct fuzz_head) + 65536];
	struct guest_space *s = &r->f.g.space[0];

	memcpy(out, &r->head, sizeof(r->head));
	CHECK(s->len <= sizeof(out) - sizeof(r->head));
	guest_read(s, s->base, out + sizeof(r->head), s->len);
	fn(arg, name, out, sizeof(r->head) + s->len);
}

/* What was recorded does the same once more. */
static void
emit_records(struct recorder *r, const char *name, seed_fn fn, void *arg)
{
	static uint8_t out[sizeof(struct fuzz_head) + sizeof(r->op)];
	static struct fuzz again;
	uint32_t n = r->nb_ops < FUZZ_MAX_OPS ? r->nb_ops : FUZZ_MAX_OPS, k, i;

	fuzz_open(&again, &r->head, r->f.cfg.packed);
	for (i = 0; i < r->nb_ops && r->nb_ops <= FUZZ_MAX_OPS; i++)
		fuzz_run(&again, &r->op[i]);
	for (k = 0; k < DIM(again.g.space) && r->nb_ops <= FUZZ_MAX_OPS; k++)
		for (i = 0; i < again.g.space[k].nb; i++) {
			const struct guest_region *a = &again.g.space[k].region[i];
			const struct guest_region *b = &r->f.g.space[k].region[i];

			CHECK(a->r.len == b->r.len);
			CHECK(a->block == NULL || memcmp(a->r.host, b->r.host, a->r.len) == 0);
		}
	CHECK(r->nb_ops > FUZZ_MAX_OPS || again.nb_completed == r->f.nb_completed);
	fuzz_close(&again);
	memcpy(out, &r->head, sizeof(r->head));
	memcpy(out + sizeof(r->head), r->op, n * sizeof(r->op[0]));
	fn(arg, name, out, sizeof(r->head) + n * sizeof(r->op[0]));
}

static void
record(const struct fuzz_head *head, bool packed, uint32_t features, seed_fn fn, void *arg)
{
	static const char *const kind[] = {"direct", "region", "iotlb", "iomem"};
	static struct recorder r;
	bool own_areas = head->area_kind[0] != 0;
	struct guest g;
	char name[96];
	uint32_t i;

	memset(&r, 0, sizeof(r));
	r.head = *head;
	r.head.version = FUZZ_VERSION;
	r.features = features;
	r.seed = head->size + (head->flags << 16) + ((uint64_t)features << 24) +
		((uint64_t)head->kind << 32);
	if (head->kind != VRINGH_MEM_DIRECT) {
		guest_open(&g, head, packed);
		cut_exactly(&r.head, &g, own_areas);
		guest_close(&g);
	}
	fuzz_open(&r.f, &r.head, packed);
	CHECK(vringh_broken(&r.f.vr) == VRINGH_OK);
	mock_start(&r, own_areas);
	for (i = 0; i < ROUNDS; i++) {
		driver_part(&r, 1 + pick(&r, 4));
		if (!(features & S_RAW))
			device_part(&r, i);
	}
	CHECK(features & S_RAW || r.f.nb_completed > 0);
	snprintf(name, sizeof(name), "%s-%s-%u-flags%02x-features%02x%s",
		packed ? "packed" : "split", kind[head->kind], head->size, head->flags, features,
		own_areas ? "-areas" : "");
	if (features & S_RAW)
		emit_memory(&r, name, fn, arg);
	else
		emit_records(&r, name, fn, arg);
	mock_free(&r.d);
	fuzz_close(&r.f);
}

static void
seeds(bool packed, uint32_t features, seed_fn fn, void *arg)
{
	static const uint8_t extra[] = {S_LOG, S_MOVE | S_LOG, S_DISCARD, S_RELOAD | S_DISCARD,
		S_BAD, S_MISS | S_LOG, S_BAD | S_LOG};
	static const uint16_t sizes[2][5] = {{1, 2, 8, 64, 256}, {1, 3, 5, 64, 250}};
	uint32_t kind, i, n = 0;

	for (kind = 0; kind < VRINGH_MEM_MAX; kind++)
		for (i = 0; i < 28; i++, n++) {
			struct fuzz_head head = {
				.kind = kind,
				.flags = i % 16 | (kind == VRINGH_MEM_IOMEM ? FUZZ_LINK : 0) |
					(i % 5 == 4 &&
								(kind == VRINGH_MEM_REGION ||
									kind == VRINGH_MEM_IOTLB) ?
							FUZZ_HUGE :
							0) |
					(features & S_RAW && packed ? FUZZ_PACKED : 0) |
					(i % 7 == 6 ? FUZZ_INFLIGHT : 0),
				.max_chains = 31,
				.max_segs = 127,
				.size = sizes[packed][n % 5],
				.base = n / 5,
			};
			uint32_t with =
				features | (features & S_RAW ? 0 : extra[(i + kind) % DIM(extra)]);
			uint16_t start = packed ? 0x8000 : 0;

			/* The index, or the lap, turns over soon. */
			if (n % 3 > 0)
				start = packed ? head.size - 1 : 0xfffe;
			head.state = (struct vringh_state){start, start};
			if (kind != VRINGH_MEM_IOTLB)
				with &= ~S_MISS;
			/* An NTB: every area in another kind of memory. */
			if (i % 6 == 5 && kind != VRINGH_MEM_DIRECT && !(features & S_RAW)) {
				head.area_kind[AREA_DESC] = 1 + VRINGH_MEM_REGION;
				head.area_kind[AREA_DRIVER] = 1 + VRINGH_MEM_DIRECT;
				head.area_kind[AREA_DEVICE] = 1 + VRINGH_MEM_IOMEM;
			}
			record(&head, packed, with, fn, arg);
		}
}

void
fuzz_seeds(enum fuzz_target target, seed_fn fn, void *arg)
{
	uint32_t features = target == FUZZ_RAW ? S_RAW : 0;

	if (target != FUZZ_PACKED_RING)
		seeds(false, features, fn, arg);
	if (target != FUZZ_SPLIT)
		seeds(true, features, fn, arg);
}
