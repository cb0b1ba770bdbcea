/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Carries out records on a queue and guest memory, and checks after each what always has to
 * hold. Runs on the target's thread.
 */

#include <string.h>

#include "fuzz_ring.h"

#define WRAP	      0x8000
#define MAX_DIRTY_LEN (1 << 19) /* bytes of bitmap */

uint32_t
fuzz_distance(const struct fuzz *f, struct vringh_state state)
{
	uint32_t avail = state.avail & (WRAP - 1), used = state.used & (WRAP - 1);

	if (!f->cfg.packed)
		return (uint16_t)(state.avail - state.used);
	if ((state.avail ^ state.used) & WRAP)
		return f->cfg.size + avail - used;
	return avail - used;
}

/* Distances wrap where a position is behind the other. */
static bool
state_legal(const struct fuzz *f, struct vringh_state state)
{
	if (f->cfg.packed &&
		((state.avail & (WRAP - 1)) >= f->cfg.size ||
			(state.used & (WRAP - 1)) >= f->cfg.size))
		return false;
	return fuzz_distance(f, state) <= f->cfg.size;
}

/* Every area is in one region, with its rights, and aligned in this process. */
static bool
areas_usable(struct fuzz *f)
{
	static const uint32_t align[2][AREA_MAX] = {{16, 2, 4}, {16, 4, 4}};
	bool packed = f->cfg.packed;
	int i;

	for (i = 0; i < AREA_MAX; i++) {
		uint64_t len = f->g.area_len[i];
		uint32_t perm = i == AREA_DEVICE ? VRINGH_PERM_WRITE :
			i == AREA_DESC && packed ? VRINGH_PERM_RW :
						   VRINGH_PERM_READ;
		const uint8_t *host = guest_piece(guest_area(&f->g, i), f->g.area[i], &len, perm);

		if (host == NULL || len < f->g.area_len[i] ||
			(uintptr_t)host % align[packed][i] != 0)
			return false;
	}
	return true;
}

static bool
layout_legal(struct fuzz *f)
{
	static const uint32_t align[2][AREA_MAX] = {{16, 2, 4}, {16, 4, 4}};
	uint32_t size = f->cfg.size;
	int i, j;

	if (size == 0 || size > VRINGH_MAX_SIZE || (!f->cfg.packed && (size & (size - 1)) != 0))
		return false;
	for (i = 0; i < AREA_MAX; i++) {
		if (f->g.area[i] % align[f->cfg.packed][i] != 0)
			return false;
		for (j = 0; j < AREA_MAX; j++)
			if (j != i && guest_area(&f->g, i) == guest_area(&f->g, j) &&
				f->g.area[i] - f->g.area[j] < f->g.area_len[j])
				return false;
	}
	return true;
}

static void
dirty_off(struct fuzz *f)
{
	free(f->dirty.bitmap);
	f->dirty.bitmap = NULL;
	f->dirty_on = false;
}

/* In-flight tracking is set up before the first fetch; everything in it comes again. */
static void
track(struct fuzz *f)
{
	struct vringh_state state, before = vringh_get_state(&f->vr);
	struct guest_range range = fuzz_area(f, AREA_DESC);
	int n;

	guest_save(&f->g);
	n = vringh_set_inflight(&f->vr, &f->inflight, f->region, f->region_len, f->resubmit);
	/* Packed: a batch that the driver has not seen is taken back. */
	guest_check(&f->g, &range, f->cfg.packed, NULL);
	state = vringh_get_state(&f->vr);
	if (n < 0) {
		enum vringh_error broken = vringh_broken(&f->vr);

		CHECK(n == -(int)(broken != VRINGH_OK ? broken : VRINGH_E_INFLIGHT));
		CHECK(state.avail == before.avail && state.used == before.used);
		n = 0;
	}
	CHECK(state_legal(f, state));
	CHECK((uint32_t)n <= fuzz_distance(f, state));
	f->seen = state.avail;
	f->again = n;
	fuzz_phantoms(f, fuzz_distance(f, state));
}

static void
start(struct fuzz *f, struct vringh_state state)
{
	bool legal = layout_legal(f) && state_legal(f, state);
	int error;

	dirty_off(f);
	f->cfg.state = state;
	memset(&f->vr, 0xa5, sizeof(f->vr));
	guest_save(&f->g);
	error = vringh_init(&f->vr, &f->cfg);
	guest_check(&f->g, NULL, 0, NULL);
	CHECK((int)vringh_broken(&f->vr) == -error);
	CHECK((error == 0) == (legal && areas_usable(f)));
	f->ready = error == 0 || error == -VRINGH_E_MISS;
	CHECK(legal || !f->ready);
	f->seen = state.avail;
	f->refused = false;
	f->again = 0;
	if (f->ready && f->nb_held == 0)
		fuzz_phantoms(f, fuzz_distance(f, state));
	if (f->ready && f->region != NULL)
		track(f);
	if (!f->ready)
		f->nb_held = 0;
}

void
fuzz_open(struct fuzz *f, const struct fuzz_head *head, bool packed)
{
	struct guest *g = &f->g;

	memset(f, 0, offsetof(struct fuzz, held));
	memset(&f->nb_held, 0, sizeof(*f) - offsetof(struct fuzz, nb_held));
	guest_open(g, head, packed);
	head = &g->head;
	f->cfg = (struct vringh_config){
		.packed = packed,
		.event_idx = head->flags & FUZZ_EVENT_IDX,
		.indirect = head->flags & FUZZ_INDIRECT,
		.in_order = head->flags & FUZZ_IN_ORDER,
		.reads_only = head->flags & FUZZ_READS_ONLY,
		.size = head->size,
		.desc = g->area[AREA_DESC],
		.driver = g->area[AREA_DRIVER],
		.device = g->area[AREA_DEVICE],
		.mem = &g->space[0].mem,
		.desc_mem = head->area_kind[AREA_DESC] ? &g->space[1 + AREA_DESC].mem : NULL,
		.driver_mem = head->area_kind[AREA_DRIVER] ? &g->space[1 + AREA_DRIVER].mem : NULL,
		.device_mem = head->area_kind[AREA_DEVICE] ? &g->space[1 + AREA_DEVICE].mem : NULL,
	};
	f->batch.max_chains = head->max_chains + 1;
	f->batch.max_segs = head->max_segs % (2 * GUEST_MAX_SIZE) + 1;
	f->batch.chain = malloc(f->batch.max_chains * sizeof(*f->batch.chain));
	f->batch.seg = malloc(f->batch.max_segs * sizeof(*f->batch.seg));
	CHECK(f->batch.chain != NULL && f->batch.seg != NULL);
	if (head->flags & FUZZ_INFLIGHT && head->size <= GUEST_MAX_SIZE) {
		f->region_len = vringh_inflight_size(packed, head->size);
		f->region = calloc(1, f->region_len);
		f->region_old = calloc(1, f->region_len);
		f->resubmit = malloc(head->size * sizeof(*f->resubmit) + 1);
		CHECK(f->region != NULL && f->region_old != NULL && f->resubmit != NULL);
	}
	start(f, head->state);
}

void
fuzz_close(struct fuzz *f)
{
	dirty_off(f);
	guest_close(&f->g);
	free(f->batch.chain);
	free(f->batch.seg);
	free(f->region);
	free(f->region_old);
	free(f->resubmit);
}

uint16_t
fuzz_bits(const struct fuzz *f, uint32_t slot)
{
	uint16_t avail = vringh_get_state(&f->vr).avail;
	bool wrap = (slot >= (uint32_t)(avail & (WRAP - 1))) == !!(avail & WRAP);

	return 1 << (wrap ? VRING_PACKED_DESC_F_AVAIL : VRING_PACKED_DESC_F_USED);
}

#define BITS (1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED)

static void
put_desc(struct fuzz *f, const struct fuzz_op *op)
{
	uint64_t addr = guest_addr(&f->g, op->d, vringh_get_miss(&f->vr).iova);
	struct vring_desc split = {addr, op->c, op->f, op->e};
	struct vring_packed_desc packed = {addr, op->c, op->e, op->f};
	const void *desc = &split;
	uint32_t i = op->b % (f->cfg.size + !f->cfg.size);

	if (f->cfg.packed) {
		if (op->op % OP_MAX == OP_DESC && op->a & OP_DESC_NEW)
			packed.flags = (packed.flags & ~BITS) | fuzz_bits(f, i);
		desc = &packed;
	}
	if (op->op % OP_MAX == OP_DESC)
		guest_write(
			guest_area(&f->g, AREA_DESC), f->g.area[AREA_DESC] + 16ull * i, desc, 16);
	else
		guest_write(&f->g.space[0], f->g.tables + 16ull * op->b, desc, 16);
}

static void
put_avail(struct fuzz *f, const struct fuzz_op *op)
{
	struct guest_space *s = guest_area(&f->g, f->cfg.packed ? AREA_DESC : AREA_DRIVER);
	uint64_t area = f->g.area[f->cfg.packed ? AREA_DESC : AREA_DRIVER];
	uint32_t size = f->cfg.size + !f->cfg.size;
	uint16_t v;

	if (f->cfg.packed) {
		uint32_t slot = op->b % size;

		guest_read(s, area + 16 * slot + 14, &v, sizeof(v));
		v = (v & ~BITS) | (op->a & 1 ? BITS ^ fuzz_bits(f, slot) : fuzz_bits(f, slot));
		guest_write(s, area + 16 * slot + 14, &v, sizeof(v));
		return;
	}
	guest_read(s, area + 2, &v, sizeof(v));
	guest_write(s, area + 4 + 2 * ((v + op->b % 8) % size), &op->e, sizeof(op->e));
	v += op->a & 0x80 ? -(op->a % 4) : op->a % 4;
	guest_write(s, area + 2, &v, sizeof(v));
}

static void
poke_region(struct fuzz *f, const struct fuzz_op *op, uint32_t off, const void *v, uint32_t len)
{
	if (f->region == NULL || f->region_len < 8)
		return;
	off %= off >> (AT_SHIFT - 1) ? 32 : f->region_len;
	if (off >= f->region_len)
		return;
	if (op->a & OP_POKE_OLD)
		len = op->c;
	if (len > f->region_len - off)
		len = f->region_len - off;
	memcpy(f->region + off, op->a & OP_POKE_OLD ? f->region_old + off : v, len);
}

static void
poke(struct fuzz *f, const struct fuzz_op *op)
{
	uint64_t v = op->c | (uint64_t)op->e << 32 | (uint64_t)op->f << 48;
	uint64_t addr = guest_addr(&f->g, op->d, vringh_get_miss(&f->vr).iova);
	uint32_t len = 1 << op->a % 4, off = op->d & ((1u << AT_SHIFT) - 1);
	struct guest_space *s = &f->g.space[0];

	if (op->d >> AT_SHIFT == AT_TRACK) {
		poke_region(f, op, off, &v, len);
		return;
	}
	if (op->d >> AT_SHIFT == AT_AREA)
		s = guest_area(&f->g, (off >> 24) % AREA_MAX);
	guest_write(s, addr, &v, len);
}

static void
notification(struct fuzz *f, const struct fuzz_op *op)
{
	struct guest_range range = fuzz_area(f, AREA_DEVICE);
	bool broken = vringh_broken(&f->vr) != VRINGH_OK, yes = false;

	guest_save(&f->g);
	if (op->op % OP_MAX == OP_NEED_NOTIFY)
		yes = vringh_need_notify(&f->vr);
	else if (op->op % OP_MAX == OP_DISABLE)
		vringh_notify_disable(&f->vr);
	else if (vringh_notify_enable(&f->vr))
		yes = true;
	guest_check(&f->g, &range, !broken && op->op % OP_MAX != OP_NEED_NOTIFY,
		f->dirty_on ? &f->dirty : NULL);
	CHECK(!yes || !broken);
	if (op->op % OP_MAX == OP_ENABLE)
		CHECK(yes == vringh_pending(&f->vr) && (yes || broken || f->again == 0));
}

/* Answers of vringh_set_mem(), from the areas as they are now. */
static void
look_anew(struct fuzz *f, struct vringh_mem *mem)
{
	enum vringh_error before = vringh_broken(&f->vr);
	int error;

	guest_save(&f->g);
	error = vringh_set_mem(&f->vr, mem);
	guest_check(&f->g, NULL, 0, NULL);
	CHECK((int)vringh_broken(&f->vr) == -error);
	f->gen++;
	if (before != VRINGH_OK && before != VRINGH_E_MISS)
		CHECK(error == -(int)before);
	else if (areas_usable(f))
		CHECK(error == 0);
	else
		CHECK(error == -VRINGH_E_AREA || error == -VRINGH_E_ALIGN ||
			error == -VRINGH_E_MISS);
}

static void
change_mem(struct fuzz *f, const struct fuzz_op *op)
{
	struct guest_space *s = &f->g.space[0];

	switch (op->a % SET_MEM_MAX) {
	case SET_MEM_MOVE:
		guest_move(&f->g);
		break;
	case SET_MEM_PERMIT:
		if (s->nb > 0)
			guest_permit(s, op->b % s->nb, op->e % (VRINGH_PERM_RW + 1));
		break;
	case SET_MEM_REMOVE:
		/* Direct memory is always one region. */
		if (s->nb > 1)
			guest_remove(s, op->b % s->nb);
		break;
	case SET_MEM_RESTORE:
		guest_restore(&f->g);
		break;
	}
	look_anew(f, op->a % SET_MEM_MAX == SET_MEM_NULL ? NULL : &s->mem);
}

static void
translate(struct fuzz *f, const struct fuzz_op *op)
{
	uint64_t iova = guest_addr(&f->g, op->d, vringh_get_miss(&f->vr).iova);
	struct guest_space *s = &f->g.space[op->a % DIM(f->g.space)];

	if (s->flat == NULL || s->mem.kind != VRINGH_MEM_IOTLB)
		return;
	if (op->op % OP_MAX == OP_MAP) {
		guest_map(&f->g, s, iova, op->c % (s->len + GUEST_PAGE), op->e % 4);
		if (vringh_broken(&f->vr) == VRINGH_E_MISS)
			look_anew(f, NULL);
	} else {
		guest_unmap(s, op->b & 1 ? 0 : iova, op->b & 1 ? 0 : op->c);
		look_anew(f, NULL);
	}
}

static bool
dirty_reaches(uint64_t dirty_len, uint64_t addr, uint64_t len)
{
	return len == 0 || (addr + (len - 1)) / GUEST_PAGE / 8 < dirty_len;
}

static void
set_dirty(struct fuzz *f, const struct fuzz_op *op)
{
	const struct guest_space *s = &f->g.space[0];
	struct vringh_dirty_log dirty = {.desc = op->c % (1 << 24), .device = op->d % (1 << 24)};
	bool reaches, iotlb = s->mem.kind == VRINGH_MEM_IOTLB;
	uint64_t last;
	uint32_t i;
	int ret;

	if (!(op->a & 1)) {
		CHECK(vringh_set_dirty_log(&f->vr, NULL) == 0);
		dirty_off(f);
		return;
	}
	/* The shortest bitmap that reaches everywhere, or a few bytes less. */
	last = dirty.device + f->g.area_len[AREA_DEVICE];
	if (f->cfg.packed && dirty.desc + f->g.area_len[AREA_DESC] > last)
		last = dirty.desc + f->g.area_len[AREA_DESC];
	for (i = 0; i < s->nb; i++) {
		const struct vringh_region *r = &s->region[i].r;
		uint64_t end = (iotlb ? r->dirty : r->iova) + (r->len - 1);

		if (r->perm & VRINGH_PERM_WRITE && end + 1 > last)
			last = end + 1;
	}
	dirty.len = (last - 1) / GUEST_PAGE / 8 + 1;
	if (dirty.len > MAX_DIRTY_LEN)
		dirty.len = MAX_DIRTY_LEN;
	dirty.len = dirty.len > op->b % 8 ? dirty.len - op->b % 8 : 0;
	reaches = dirty_reaches(dirty.len, dirty.device, f->g.area_len[AREA_DEVICE]) &&
		(!f->cfg.packed || dirty_reaches(dirty.len, dirty.desc, f->g.area_len[AREA_DESC]));
	for (i = 0; i < s->nb; i++)
		if (s->region[i].r.perm & VRINGH_PERM_WRITE)
			reaches &= dirty_reaches(dirty.len,
				iotlb ? s->region[i].r.dirty : s->region[i].r.iova,
				s->region[i].r.len);
	dirty.bitmap = calloc(1, dirty.len + !dirty.len);
	CHECK(dirty.bitmap != NULL);
	ret = vringh_set_dirty_log(&f->vr, &dirty);
	CHECK(!f->ready || ret == (reaches ? 0 : -VRINGH_E_DIRTY));
	dirty_off(f);
	if (ret == 0) {
		f->dirty = dirty;
		f->dirty_on = true;
	} else {
		free(dirty.bitmap);
	}
}

static void
reload(struct fuzz *f, const struct fuzz_op *op)
{
	struct vringh_state state = f->ready ? vringh_get_state(&f->vr) : f->cfg.state;
	uint32_t how = op->a % 4;

	if (how == RELOAD_DISCARD) {
		fuzz_discard(f, UINT32_MAX);
		state = f->ready ? vringh_get_state(&f->vr) : f->cfg.state;
	}
	if (how == RELOAD_FORGET)
		state.avail = state.used;
	if (how == RELOAD_STATE)
		state = (struct vringh_state){op->e, op->f};
	/* Who saved its state says what is in flight; with tracking the region does. */
	if (f->region != NULL)
		state.avail = state.used;
	if (how >= RELOAD_FORGET || f->region != NULL)
		f->nb_held = 0;
	f->done_seq = f->next_seq;
	start(f, state);
}

void
fuzz_run(struct fuzz *f, const struct fuzz_op *op)
{
	enum vringh_error broken = vringh_broken(&f->vr);
	uint32_t i, slots = 0;

	if (f->region != NULL && op->op % OP_MAX >= OP_FETCH && op->op % OP_MAX <= OP_COMPLETE)
		memcpy(f->region_old, f->region, f->region_len);
	switch (op->op % OP_MAX) {
	case OP_DESC:
	case OP_TABLE:
		put_desc(f, op);
		return;
	case OP_AVAIL:
		put_avail(f, op);
		return;
	case OP_POKE:
		poke(f, op);
		return;
	case OP_FETCH:
		fuzz_fetch(f, op);
		break;
	case OP_DISCARD:
		fuzz_discard(f, op->b);
		break;
	case OP_COMPLETE:
		fuzz_complete(f, op);
		break;
	case OP_PULL:
		fuzz_pull(f, op);
		break;
	case OP_PUSH:
		fuzz_push(f, op);
		break;
	case OP_COPY:
		fuzz_copy(f, op);
		break;
	case OP_NEED_NOTIFY:
	case OP_ENABLE:
	case OP_DISABLE:
		notification(f, op);
		break;
	case OP_SET_MEM:
		change_mem(f, op);
		return;
	case OP_MAP:
	case OP_UNMAP:
		translate(f, op);
		return;
	case OP_REFUSE:
		vringh_refuse_miss(&f->vr);
		f->refused = true;
		break;
	case OP_LOG:
		set_dirty(f, op);
		break;
	case OP_RELOAD:
		reload(f, op);
		break;
	}
	if (op->op % OP_MAX != OP_RELOAD && broken != VRINGH_OK)
		CHECK(vringh_broken(&f->vr) == broken);
	if (!f->ready)
		return;
	for (i = 0; i < f->nb_held; i++)
		slots += f->held[i].chain.slots;
	CHECK(state_legal(f, vringh_get_state(&f->vr)));
	CHECK(slots == fuzz_distance(f, vringh_get_state(&f->vr)));
}
