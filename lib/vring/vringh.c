/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Everything that happens once per queue or once per burst: preparing a queue, its state,
 * notifications, and the bytes of chains. Runs on the thread that owns the queue.
 */

#include <string.h>

#include "vringh_core.h"

enum { AREA_DESC, AREA_DRIVER, AREA_DEVICE, AREA_MAX };

const char *
vringh_strerror(enum vringh_error error)
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
		[VRINGH_E_OVERLAP] = "ring areas overlap",
		[VRINGH_E_STATE] = "ring state is impossible for this queue size",
	};

	return error < VRINGH_E_MAX ? text[error] : "unknown error";
}

uint8_t *
vringh_mem_find(
	struct vringh *vr, uint64_t iova, uint32_t *len, uint32_t perm, enum vringh_error *error)
{
	const struct vringh_region *r = vr->hit;

	if (r == NULL || iova - r->iova >= r->len) {
		uint32_t lo = 0, hi = vr->mem.nb_regions;

		while (lo < hi) {
			uint32_t mid = lo + (hi - lo) / 2;

			r = &vr->mem.table[mid];
			if (iova < r->iova)
				hi = mid;
			else if (iova - r->iova >= r->len)
				lo = mid + 1;
			else
				break;
		}
		if (lo == hi) {
			*error = VRINGH_E_ADDR;
			return NULL;
		}
	}
	if ((r->perm & perm) != perm) {
		*error = VRINGH_E_PERM;
		return NULL;
	}
	vr->hit = r;
	if (*len > r->len - (iova - r->iova))
		*len = r->len - (iova - r->iova);
	return r->host + (iova - r->iova);
}

static const uint32_t area_align[2][AREA_MAX] = {{16, 2, 4}, {16, 4, 4}}; /* 2.7, 2.8 */

/* Layout of the areas: 2.7, 2.7.10 (event index), 2.8.10. */
static void
area_sizes(const struct vringh *vr, uint32_t size[AREA_MAX])
{
	uint32_t event = vr->event_idx ? sizeof(uint16_t) : 0;

	size[AREA_DESC] = vr->size * sizeof(struct vring_desc);
	if (vr->packed) {
		size[AREA_DRIVER] = sizeof(struct vring_packed_desc_event);
		size[AREA_DEVICE] = sizeof(struct vring_packed_desc_event);
	} else {
		size[AREA_DRIVER] =
			sizeof(struct vring_avail) + vr->size * sizeof(uint16_t) + event;
		size[AREA_DEVICE] = sizeof(struct vring_used) +
			vr->size * sizeof(struct vring_used_elem) + event;
	}
}

enum vringh_error
vringh_set_mem(struct vringh *vr, const struct vringh_mem *mem)
{
	static const uint32_t perm[2][AREA_MAX] = {
		{VRINGH_PERM_READ, VRINGH_PERM_READ, VRINGH_PERM_WRITE},
		{VRINGH_PERM_RW, VRINGH_PERM_READ, VRINGH_PERM_WRITE},
	};
	uint32_t size[AREA_MAX];
	void *host[AREA_MAX];
	int i;

	if (vr->broken != VRINGH_OK)
		return vr->broken;
	vr->mem = *mem;
	vr->hit = NULL;
	area_sizes(vr, size);
	for (i = 0; i < AREA_MAX; i++) {
		enum vringh_error error;
		uint32_t len = size[i];

		host[i] = vringh_mem_find(vr, vr->area[i], &len, perm[vr->packed][i], &error);
		if (host[i] == NULL || len < size[i])
			return vr->broken = VRINGH_E_AREA;
		if ((uintptr_t)host[i] % area_align[vr->packed][i] != 0)
			return vr->broken = VRINGH_E_ALIGN;
	}
	if (vr->packed) {
		vr->packed_ring.desc = host[AREA_DESC];
		vr->packed_ring.driver = host[AREA_DRIVER];
		vr->packed_ring.device = host[AREA_DEVICE];
	} else {
		vr->split.desc = host[AREA_DESC];
		vr->split.avail = host[AREA_DRIVER];
		vr->split.used = host[AREA_DEVICE];
	}
	return VRINGH_OK;
}

static enum vringh_error
areas_check(const struct vringh *vr)
{
	uint32_t size[AREA_MAX];
	int i, j;

	area_sizes(vr, size);
	for (i = 0; i < AREA_MAX; i++) {
		if (vr->area[i] % area_align[vr->packed][i] != 0)
			return VRINGH_E_ALIGN;
		for (j = 0; j < i; j++)
			if (vr->area[i] - vr->area[j] < size[j] ||
				vr->area[j] - vr->area[i] < size[i])
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

enum vringh_error
vringh_init(struct vringh *vr, const struct vringh_config *cfg)
{
	enum vringh_error error;

	memset(vr, 0, sizeof(*vr));
	vr->size = cfg->size;
	vr->packed = cfg->packed;
	vr->event_idx = cfg->event_idx;
	vr->indirect = cfg->indirect;
	vr->reads_only = cfg->reads_only;
	vr->area[AREA_DESC] = cfg->desc;
	vr->area[AREA_DRIVER] = cfg->driver;
	vr->area[AREA_DEVICE] = cfg->device;
	vr->ops = &vringh_instances[vr->packed];

	if (cfg->size == 0 || cfg->size > VRINGH_MAX_SIZE ||
		(!cfg->packed && (cfg->size & (cfg->size - 1)) != 0))
		return vr->broken = VRINGH_E_SIZE;
	error = areas_check(vr);
	if (error == VRINGH_OK)
		error = set_state(vr, cfg->state);
	if (error != VRINGH_OK)
		return vr->broken = error;
	return vringh_set_mem(vr, &cfg->mem);
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

int
vringh_fetch(struct vringh *vr, struct vringh_batch *batch, unsigned int max)
{
	uint32_t room = batch->max_chains - batch->nb_chains;
	int n;

	if (vringh_unlikely(vr->broken != VRINGH_OK))
		return -(int)vr->broken;
	n = vr->ops->fetch(vr, batch, max < room ? max : room);
	if (vringh_unlikely(vr->broken != VRINGH_OK)) {
		vr->nb_errors[vr->broken]++;
		return -(int)vr->broken;
	}
	return n;
}

void
vringh_discard(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	uint32_t slots = 0;
	unsigned int i;

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
vringh_complete(struct vringh *vr, const struct vringh_chain *chain, unsigned int n)
{
	unsigned int i;

	if (n == 0 || vr->broken != VRINGH_OK)
		return;
	for (i = 0; i < n; i++)
		if (vringh_unlikely(chain[i].error != VRINGH_OK))
			vr->nb_errors[chain[i].error]++;
	vr->ops->complete(vr, chain, n);
}

static bool
need_notify_split(const struct vringh *vr, uint32_t count)
{
	const struct vring_avail *avail = vr->split.avail;

	if (!vr->event_idx)
		return !(__atomic_load_n(&avail->flags, __ATOMIC_RELAXED) &
			VRING_AVAIL_F_NO_INTERRUPT);
	if (count > UINT16_MAX)
		return true;
	return vring_need_event(__atomic_load_n(&avail->ring[vr->size], __ATOMIC_RELAXED), vr->used,
		vr->used - count);
}

static bool
need_notify_packed(const struct vringh *vr, uint32_t count)
{
	/* One load: off_wrap in the low half, flags in the high one (2.8.14). */
	uint32_t event =
		__atomic_load_n((const uint32_t *)vr->packed_ring.driver, __ATOMIC_RELAXED);
	uint32_t off = event & (PACKED_WRAP - 1);
	bool wrap = event & PACKED_WRAP;
	uint32_t flags = event >> 16;
	uint32_t behind;

	if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (flags != VRING_PACKED_EVENT_FLAG_DESC || !vr->event_idx || off >= vr->size ||
		count > vr->size)
		return true;
	/* How many slots ago was the event's slot the next to be used? */
	if (wrap == !!(vr->used_flags & PACKED_AVAIL)) {
		if (off >= vr->used)
			return false;
		behind = vr->used - off;
	} else {
		if (off < vr->used)
			return false;
		behind = vr->used + vr->size - off;
	}
	return behind <= count;
}

bool
vringh_need_notify(struct vringh *vr)
{
	uint32_t count = vr->unnotified;

	if (count == 0 || vr->broken != VRINGH_OK)
		return false;
	vr->unnotified = 0;
	/*
	 * Used entries before the event field: pairs with the driver's barrier between writing
	 * the field and looking at the ring once more.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vr->packed ? need_notify_packed(vr, count) : need_notify_split(vr, count);
}

bool
vringh_notify_enable(struct vringh *vr)
{
	if (vr->broken != VRINGH_OK)
		return false;
	if (vr->packed) {
		struct vring_packed_desc_event *event = vr->packed_ring.device;
		uint16_t off_wrap = vringh_get_state(vr).avail;

		if (vr->event_idx) {
			__atomic_store_n(&event->off_wrap, off_wrap, __ATOMIC_RELAXED);
			/* The offset is valid before the flags say so. */
			__atomic_store_n(
				&event->flags, VRING_PACKED_EVENT_FLAG_DESC, __ATOMIC_RELEASE);
		} else {
			__atomic_store_n(
				&event->flags, VRING_PACKED_EVENT_FLAG_ENABLE, __ATOMIC_RELAXED);
		}
	} else if (vr->event_idx) {
		__atomic_store_n(
			(uint16_t *)&vr->split.used->ring[vr->size], vr->avail, __ATOMIC_RELAXED);
	} else {
		__atomic_store_n(&vr->split.used->flags, 0, __ATOMIC_RELAXED);
	}
	/* Event field before the ring: pairs with the driver's barrier before its kick decision. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vringh_pending(vr);
}

void
vringh_notify_disable(struct vringh *vr)
{
	if (vr->broken != VRINGH_OK)
		return;
	if (vr->packed)
		__atomic_store_n(&vr->packed_ring.device->flags, VRING_PACKED_EVENT_FLAG_DISABLE,
			__ATOMIC_RELAXED);
	else if (!vr->event_idx)
		__atomic_store_n(&vr->split.used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
	/* With an event index the field is left behind: 65,535 chains pass before it matches. */
}

/* The current piece of a chain; NULL at its end. */
static uint8_t *
iter_piece(struct vringh_iter *it, size_t *len)
{
	while (it->nb_segs > 0 && it->off == it->seg->len) {
		it->seg++;
		it->nb_segs--;
		it->off = 0;
	}
	if (it->nb_segs == 0)
		return NULL;
	if (*len > it->seg->len - it->off)
		*len = it->seg->len - it->off;
	return it->seg->addr + it->off;
}

size_t
vringh_copy(struct vringh_iter *dst, struct vringh_iter *src, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t n = len - done;
		const uint8_t *from = iter_piece(src, &n);
		uint8_t *to = iter_piece(dst, &n);

		if (from == NULL || to == NULL)
			break;
		/* Guests may let the two overlap. */
		memmove(to, from, n);
		src->off += n;
		dst->off += n;
		done += n;
	}
	return done;
}

size_t
vringh_pull(struct vringh_iter *it, void *dst, uint32_t len)
{
	struct vringh_seg seg = {.addr = dst, .len = len};
	struct vringh_iter to = {.seg = &seg, .nb_segs = 1};

	return vringh_copy(&to, it, len);
}

size_t
vringh_push(struct vringh_iter *it, const void *src, uint32_t len)
{
	struct vringh_seg seg = {.addr = (uint8_t *)(uintptr_t)src, .len = len};
	struct vringh_iter from = {.seg = &seg, .nb_segs = 1};

	return vringh_copy(it, &from, len);
}
