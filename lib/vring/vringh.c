/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Everything that happens once per queue or once per burst: preparing a queue, its memory and
 * its state, and what stands before the core. Runs on the thread that owns the queue.
 */

#include "vringh_core.h"

const char *
vringh_strerror(int error)
{
	static const char *const text[VRINGH_E_MAX] = {
		[VRINGH_OK] = "no error",
		[VRINGH_E_AVAIL_IDX] = "more chains made available than the queue size",
		[VRINGH_E_HEAD] = "head is outside the descriptor table",
		[VRINGH_E_RUNAWAY] = "more made available than the ring has slots",
		[VRINGH_E_NEXT] = "next is outside the descriptor table",
		[VRINGH_E_LOOP] = "chain is longer than the queue size",
		[VRINGH_E_ORDER] = "readable descriptor after a writable one",
		[VRINGH_E_INDIRECT] = "indirect descriptor is not allowed here",
		[VRINGH_E_TABLE] = "indirect table has a bad length",
		[VRINGH_E_ADDR] = "address is not mapped",
		[VRINGH_E_PERM] = "memory does not permit the access",
		[VRINGH_E_LEN] = "lengths add up to 4 GiB or more",
		[VRINGH_E_SEGS] = "chain has too many segments",
		[VRINGH_E_SIZE] = "queue size is 0, above 32768 or (split) not a power of two",
		[VRINGH_E_ALIGN] = "ring area is not aligned",
		[VRINGH_E_AREA] = "ring area is not mapped, or not in one piece",
		[VRINGH_E_OVERLAP] = "ring areas, or ranges, overlap",
		[VRINGH_E_STATE] = "ring state is impossible for this queue size",
		[VRINGH_E_MISS] = "address is not in the translation table",
		[VRINGH_E_RANGE] = "range is empty or wraps",
		[VRINGH_E_FULL] = "translation table is full",
		[VRINGH_E_DIRTY] = "dirty log is too short",
		[VRINGH_E_INFLIGHT] = "in-flight region does not fit the ring",
	};
	unsigned int reason = error < 0 ? -(unsigned int)error : (unsigned int)error;

	return reason < VRINGH_E_MAX ? text[reason] : "unknown error";
}

/* 2.7, 2.8 */
static uint32_t
area_align(const struct vringh *vr, unsigned int area)
{
	static const uint32_t align[2][VRINGH_AREA_MAX] = {{16, 2, 4}, {16, 4, 4}};

	return vr->apart ? align[true][VRINGH_AREA_DESC] : align[vr->packed][area];
}

/* An area has to be in one piece, though its piece may be mapped in several. */
static enum vringh_error
area_find(struct vringh *vr, unsigned int area)
{
	static const uint32_t perm[2][VRINGH_AREA_MAX] = {
		{VRINGH_PERM_READ, VRINGH_PERM_READ, VRINGH_PERM_WRITE},
		{VRINGH_PERM_RW, VRINGH_PERM_READ, VRINGH_PERM_WRITE},
	};
	uint32_t size = area_size(vr, area), done = 0;
	uint32_t want = perm[vr->packed && !vr->apart][area];
	struct vringh_region hit = {0};
	uint8_t *start = NULL;

	while (done < size) {
		uint32_t len = size - done;
		enum vringh_error error;
		uint8_t *host = vringh_mem_find(
			vr->area_mem[area], &hit, vr->area[area] + done, &len, want, &error);

		if (host == NULL && error == VRINGH_E_MISS) {
			vr->miss = (struct vringh_miss){vr->area[area] + done, want};
			return VRINGH_E_MISS;
		}
		if (host == NULL || (done > 0 && host != start + done))
			return VRINGH_E_AREA;
		if (done == 0)
			start = host;
		done += len;
	}
	vr->area_host[area] = start;
	return (uintptr_t)start % area_align(vr, area) != 0 ? VRINGH_E_ALIGN : VRINGH_OK;
}

int
vringh_set_mem(struct vringh *vr, struct vringh_mem *mem)
{
	const struct vringh_mem *polled;
	bool io = vr->apart;
	int i;

	if (vr->broken != VRINGH_OK && vr->broken != VRINGH_E_MISS)
		return -(int)vr->broken;
	vr->broken = VRINGH_OK;
	for (i = 0; i < VRINGH_AREA_MAX; i++) {
		if (mem != NULL && vr->area_mem[i] == vr->mem)
			vr->area_mem[i] = mem;
		io |= vr->area_mem[i]->kind == VRINGH_MEM_IOMEM;
	}
	if (mem != NULL)
		vr->mem = mem;
	polled = vr->area_mem[vr->packed ? VRINGH_AREA_DESC : VRINGH_AREA_DRIVER];
	vr->linked = polled->io != NULL && polled->io->invalidate != NULL;
	vr->gen = vr->mem->gen;
	vr->seg_mem = vr->mem->kind >= VRINGH_MEM_IOTLB ? vr->mem : NULL;
	vr->hit[0].len = vr->hit[1].len = vr->other.len = vr->table.len = 0;
	vr->ops = vr->packed ? &vringh_packed_ops[vr->in_order][vr->mem->kind][io] :
			       &vringh_split_ops[vr->in_order][vr->mem->kind][io];
	for (i = 0; i < VRINGH_AREA_MAX && vr->broken == VRINGH_OK; i++)
		vr->broken = area_find(vr, i);
	return -(int)vr->broken;
}

static enum vringh_error
areas_check(const struct vringh *vr)
{
	uint32_t size[VRINGH_AREA_MAX];
	int i, j;

	for (i = 0; i < VRINGH_AREA_MAX; i++)
		size[i] = area_size(vr, i);
	for (i = 0; i < VRINGH_AREA_MAX; i++) {
		if (vr->area[i] % area_align(vr, i) != 0)
			return VRINGH_E_ALIGN;
		for (j = 0; j < i; j++)
			if (vr->area_mem[i] == vr->area_mem[j] &&
				(vr->area[i] - vr->area[j] < size[j] ||
					vr->area[j] - vr->area[i] < size[i]))
				return VRINGH_E_OVERLAP;
	}
	return VRINGH_OK;
}

static enum vringh_error
set_state(struct vringh *vr, struct vringh_state state)
{
	if (vr->packed) {
		vr->avail = state.avail & (PACKED_WRAP - 1);
		vr->used = state.used & (PACKED_WRAP - 1);
		vr->avail_flags = state.avail & PACKED_WRAP ? PACKED_AVAIL : PACKED_USED;
		vr->used_flags = state.used & PACKED_WRAP ? PACKED_BOTH : 0;
		if (vr->avail >= vr->size || vr->used >= vr->size)
			return VRINGH_E_STATE;
		/* In one lap avail is not behind used; a lap ahead it is not before it. */
		if ((state.avail ^ state.used) & PACKED_WRAP) {
			if (vr->avail > vr->used)
				return VRINGH_E_STATE;
			vr->in_flight = vr->size - (vr->used - vr->avail);
		} else {
			if (vr->avail < vr->used)
				return VRINGH_E_STATE;
			vr->in_flight = vr->avail - vr->used;
		}
	} else {
		vr->avail = vr->avail_seen = state.avail;
		vr->used = state.used;
		if ((uint16_t)(state.avail - state.used) > vr->size)
			return VRINGH_E_STATE;
	}
	return VRINGH_OK;
}

int
vringh_init(struct vringh *vr, const struct vringh_config *cfg)
{
	enum vringh_error error;

	memset(vr, 0, sizeof(*vr));
	vr->size = cfg->size;
	vr->packed = cfg->packed;
	vr->event_idx = cfg->event_idx;
	vr->indirect = cfg->indirect;
	vr->in_order = cfg->in_order;
	vr->reads_only = cfg->reads_only;
	vr->apart = cfg->apart && cfg->packed;
	vr->vector = !cfg->scalar && vringh_avx2_present();
	vr->mem = cfg->mem;
	vr->area_mem[VRINGH_AREA_DESC] = cfg->desc_mem != NULL ? cfg->desc_mem : cfg->mem;
	vr->area_mem[VRINGH_AREA_DRIVER] = cfg->driver_mem != NULL ? cfg->driver_mem : cfg->mem;
	vr->area_mem[VRINGH_AREA_DEVICE] = cfg->device_mem != NULL ? cfg->device_mem : cfg->mem;
	vr->area[VRINGH_AREA_DESC] = cfg->desc;
	vr->area[VRINGH_AREA_DRIVER] = cfg->driver;
	vr->area[VRINGH_AREA_DEVICE] = cfg->device;

	if (cfg->size == 0 || cfg->size > VRINGH_MAX_SIZE ||
		(!cfg->packed && (cfg->size & (cfg->size - 1)) != 0))
		error = VRINGH_E_SIZE;
	else
		error = areas_check(vr);
	if (error == VRINGH_OK)
		error = set_state(vr, cfg->state);
	vr->broken = error;
	return error != VRINGH_OK ? -(int)error : vringh_set_mem(vr, NULL);
}

void
vringh_clear_device(struct vringh *vr)
{
	const struct vringh_mem *mem = vr->area_mem[VRINGH_AREA_DEVICE];
	uint8_t *area = vr->area_host[VRINGH_AREA_DEVICE];
	uint32_t len = area_size(vr, VRINGH_AREA_DEVICE), i;

	if (vr->broken != VRINGH_OK)
		return;
	for (i = 0; i + sizeof(uint32_t) <= len; i += sizeof(uint32_t))
		mem_store32(area + i, 0);
	for (; i < len; i++)
		mem_store8(area + i, 0);
	if (!vr->packed)
		mem_store16(&vr->split.used->idx, vr->used);
	for (i = 0; vr->apart && i < vr->size; i++) {
		struct vring_packed_desc *d =
			(struct vring_packed_desc *)(area + VRINGH_APART_OFFSET) + i;

		/* Those before the position were used in this lap, the others in the last one. */
		if ((i < vr->used) == (vr->used_flags != 0))
			mem_store16(&d->flags, PACKED_BOTH);
	}
	io_flush(mem, area, len);
}

struct vringh_state
vringh_get_state(const struct vringh *vr)
{
	struct vringh_state state = {.avail = vr->avail, .used = vr->used};

	if (vr->packed) {
		if (vr->avail_flags & PACKED_AVAIL)
			state.avail |= PACKED_WRAP;
		if (vr->used_flags & PACKED_AVAIL)
			state.used |= PACKED_WRAP;
	}
	return state;
}

void
vringh_refuse_miss(struct vringh *vr)
{
	vr->refuse_miss = true;
}

/* What is not the rule: a broken queue, a miss that is final, chains in flight to be tracked. */
static __attribute__((noinline)) int
fetch_special(struct vringh *vr, struct vringh_batch *batch, unsigned int max)
{
	int n;

	if (vr->broken != VRINGH_OK)
		return -(int)vr->broken;
	if (vr->refuse_miss && max > 1)
		max = 1;
	n = vr->tracked ? vringh_inflight_fetch(vr, batch, max) : vr->ops->fetch(vr, batch, max);
	if (n != 0)
		vr->refuse_miss = false;
	return n;
}

int
vringh_fetch(struct vringh *vr, struct vringh_batch *batch, unsigned int max)
{
	uint32_t room = batch->max_chains - batch->nb_chains;

	if (max > room)
		max = room;
	if (vringh_unlikely(is_special(vr)))
		return fetch_special(vr, batch, max);
	return vr->ops->fetch(vr, batch, max);
}

void
vringh_discard(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	uint32_t slots = 0;
	unsigned int i;

	if (vringh_unlikely(vr->tracked)) {
		unsigned int again = vringh_inflight_discard(vr, chain, n);

		chain += again;
		n -= again;
	}
	/* The unit is ring entries, not chains. */
	for (i = 0; i < n; i++)
		slots += chain[i].slots;
	if (vr->packed) {
		vr->in_flight -= slots;
		if (slots > vr->avail) {
			slots -= vr->size;
			vr->avail_flags ^= PACKED_BOTH;
		}
	}
	vr->avail -= slots;
}

void
vringh_count_bad(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (chain[i].error != VRINGH_OK)
			vr->nb_errors[chain[i].error]++;
}

static __attribute__((noinline)) void
complete_special(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	uint16_t from = vr->used;

	if (vr->broken != VRINGH_OK)
		return;
	if (vr->dirty)
		vringh_dirty_chains(vr, chain, n);
	if (vr->tracked)
		vringh_inflight_before(vr, chain, n);
	vr->ops->complete(vr, chain, n);
	if (vr->tracked)
		vringh_inflight_after(vr, chain, n);
	if (vr->dirty)
		vringh_dirty_used(vr, from, chain, n);
}

void
vringh_complete(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	if (vringh_unlikely(n == 0))
		return;
	if (vringh_unlikely(is_special(vr)))
		complete_special(vr, chain, n);
	else
		vr->ops->complete(vr, chain, n);
}
