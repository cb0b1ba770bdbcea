/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A guest's rings as librte_vhost tells of them, and as a function has left them that ended. With
 * the device's lock held, while the guest has the device.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <rte_common.h>
#include <rte_vhost.h>

#include <vfn_signal.h>
#include <vringh.h>

#include "vfn_drv.h"

#define PACKED_WRAP (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

/*
 * Where a split ring's used ring stands. librte_vhost tells of areas, too, that end behind their
 * region.
 */
bool
vfn_ring_used_idx(const struct vfn_dev *dev, const struct vfn_vpci_ring *ring, uint16_t *idx)
{
	const uint16_t *at =
		vfn_memory_at(dev, ring->device + offsetof(struct vring_used, idx), sizeof(*at));

	if (at != NULL)
		*idx = __atomic_load_n(at, __ATOMIC_RELAXED);
	return at != NULL;
}

/*
 * No slot has ever been used (virtio 1.3, 2.8.1): the driver has set the ring up anew. An old ring
 * looks like that only at the beginning of a lap, where the position is the same.
 */
bool
vfn_ring_fresh(const struct vfn_dev *dev, const struct vfn_vpci_ring *ring)
{
	const struct vring_packed_desc *desc =
		vfn_memory_at(dev, ring->desc, ring->size * sizeof(*desc));
	uint16_t i, flags = 0;

	for (i = 0; desc != NULL && i < ring->size; i++)
		flags |= __atomic_load_n(&desc[i].flags, __ATOMIC_RELAXED);
	return !(flags & 1u << VRING_PACKED_DESC_F_USED);
}

/* What librte_vhost knows of a ring. */
int
vfn_ring_get(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	struct rte_vhost_vring vring;
	uint64_t features = 0;
	uint16_t used_idx;

	if (rte_vhost_get_vhost_vring(dev->guest->vid, queue, &vring) < 0 ||
		rte_vhost_get_vring_base(dev->guest->vid, queue, &ring->avail, &ring->used) < 0 ||
		vfn_guest_features(dev->guest, &features) < 0) {
		DEV_LOG(ERR, dev, "queue %u: librte_vhost does not tell its ring", queue);
		return -EINVAL;
	}
	if (vfn_iommu_is(dev->guest)) {
		vfn_iommu_ring_get(dev->guest, queue, ring);
		goto rest;
	}
	/* The three areas are unions with those of a packed ring. */
	if (!vfn_memory_gpa(dev, vring.desc, &ring->desc) ||
		!vfn_memory_gpa(dev, vring.avail, &ring->driver) ||
		!vfn_memory_gpa(dev, vring.used, &ring->device)) {
		DEV_LOG(ERR, dev, "queue %u refused: a ring area is not in %s", queue,
			vfn_memory_name(dev));
		return -EINVAL;
	}
	ring->size = vring.size;
	if (!(features & UINT64_C(1) << VIRTIO_F_RING_PACKED) &&
		!vfn_ring_used_idx(dev, ring, &used_idx)) {
		DEV_LOG(ERR, dev, "queue %u refused: its used ring is not in %s", queue,
			vfn_memory_name(dev));
		return -EINVAL;
	}
	/*
	 * A front-end that does not know of wrap counters, as user-mode Linux, says 0 of a ring
	 * that nobody has used. In another lap there are used slots.
	 */
	if ((features & UINT64_C(1) << VIRTIO_F_RING_PACKED) && ring->avail == 0 &&
		ring->used == 0 && vfn_ring_fresh(dev, ring))
		ring->avail = ring->used = VFN_PACKED_START;
rest:
	ring->size = vring.size;
	/* 0 if the front-end did not say: then it is the address of the ring. */
	ring->dirty = vring.log_guest_addr != 0 ? vring.log_guest_addr : ring->device;
	ring->inflight = ring->inflight_len = 0;
	/* A poller that sleeps would not see a store, so it gets nothing that lets it sleep. */
	ring->kickfd = dev->doorbells.fd >= 0 ? -1 : vring.kickfd;
	ring->callfd = vring.callfd;
	return 0;
}

/* A packed ring as the next function on it sees it, from a position on. */
struct look {
	struct vringh ring;
	struct vringh_inflight inflight;
	struct vringh_mem mem;
	struct vringh_region table[];
};

/* NULL if it cannot be had. */
static struct look *
look_new(struct vfn_dev *dev, uint16_t queue, uint64_t features, const struct vfn_vpci_ring *ring)
{
	struct vringh_config cfg = {
		.packed = true,
		.indirect = features & UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC,
		.in_order = features & UINT64_C(1) << VIRTIO_F_IN_ORDER,
		.reads_only = dev->class->in_pairs && queue % 2 == 1,
		.size = ring->size,
		.desc = ring->desc,
		.driver = ring->driver,
		.device = ring->device,
		.state = {.avail = ring->avail, .used = ring->used},
	};
	struct look *look = NULL;
	size_t size = sizeof(*look) + dev->memory.nb_regions * sizeof(look->table[0]);

	/* A multiple of what vringh is aligned to. */
	size = RTE_ALIGN_CEIL(size, __alignof__(*look));
	look = aligned_alloc(__alignof__(*look), size);
	if (look == NULL)
		return NULL;
	memset(look, 0, size);
	look->mem.table = look->table;
	vfn_memory_table(&dev->memory, &look->mem);
	cfg.mem = &look->mem;
	if (vringh_init(&look->ring, &cfg) == 0)
		return look;
	free(look);
	return NULL;
}

/* Where its in-flight region says that it stands. */
static bool
look_region(struct vfn_dev *dev, uint16_t queue, struct look *look, uint16_t *resubmit)
{
	const struct vfn_inflight_region *region = &dev->inflight.region[queue];

	return vringh_set_inflight(
		       &look->ring, &look->inflight, region->host, region->len, resubmit) >= 0 &&
		(dev->class->any_order || vringh_rewind(&look->ring) == 0);
}

/* As the next function on it would find out. */
static bool
packed_left(struct vfn_dev *dev, uint16_t queue, uint64_t features, struct vfn_vpci_ring *ring)
{
	struct look *look = NULL;
	uint16_t *resubmit = NULL;
	struct vringh_state state;
	bool known;

	if (dev->inflight.region[queue].map == NULL)
		return false;
	look = look_new(dev, queue, features, ring);
	resubmit = calloc(ring->size, sizeof(*resubmit));
	known = look != NULL && resubmit != NULL && look_region(dev, queue, look, resubmit);
	if (known) {
		state = vringh_get_state(&look->ring);
		/* What is in flight the region tells, again. */
		ring->avail = dev->class->any_order ? state.used : state.avail;
		ring->used = state.used;
	}
	free(look);
	free(resubmit);
	return known;
}

/*
 * Where the function that has ended left a ring: where it completes in the order in which it
 * fetches, one index says all of a split one; else, and of a packed one, the in-flight region
 * tells. False: nobody knows.
 */
bool
vfn_ring_left(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	uint64_t features = 0;
	uint16_t used_idx;

	/* Nobody but the function knows where the ring is. */
	if (vfn_ring_get(dev, queue, ring) < 0 || vfn_iommu_is(dev->guest) ||
		vfn_guest_features(dev->guest, &features) < 0)
		return false;
	if (features & UINT64_C(1) << VIRTIO_F_RING_PACKED)
		return packed_left(dev, queue, features, ring);
	if ((dev->class->any_order && dev->inflight.region[queue].map == NULL) ||
		!vfn_ring_used_idx(dev, ring, &used_idx))
		return false;
	ring->avail = ring->used = used_idx;
	return true;
}

/* Fetch all that is available. Segments are of no use here, so that their room is used again. */
static bool
fetch_all(struct vringh *vr, struct vringh_batch *batch)
{
	int n;

	do {
		batch->nb_segs = 0;
		n = vringh_fetch(vr, batch, batch->max_chains);
	} while (n > 0);
	return n == 0;
}

/*
 * Has somebody who stands at `to` now used the chain at `at`? Then its slot is marked as used in
 * this lap.
 */
static bool
is_used(const struct vfn_dev *dev, const struct vfn_vpci_ring *ring, uint16_t at, uint16_t to)
{
	const uint16_t both = 1u << VRING_PACKED_DESC_F_AVAIL | 1u << VRING_PACKED_DESC_F_USED;
	const uint16_t slot = at & (PACKED_WRAP - 1), next = to & (PACKED_WRAP - 1);
	const bool same_lap = ((at ^ to) & PACKED_WRAP) == 0;
	const struct vring_packed_desc *desc =
		vfn_memory_at(dev, ring->desc, ring->size * sizeof(*desc));

	return desc != NULL && next < ring->size && (same_lap ? next > slot : next <= slot) &&
		(__atomic_load_n(&desc[slot].flags, __ATOMIC_ACQUIRE) & both) ==
		(at & PACKED_WRAP ? both : 0);
}

/*
 * QEMU does not know where a packed ring stands whose back-end it has lost. As long as there is
 * none, it uses up a chain that the guest sends if that lies where QEMU takes the ring to stand,
 * and stands behind it then. A device that came to that chain would wait for it for ever. So what
 * was sent before is dropped, too, and the ring goes on where the front-end says: true.
 */
bool
vfn_ring_catch_up(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring,
	uint64_t features, uint16_t front_end)
{
	const bool tracked = dev->inflight.region[queue].map != NULL;
	struct vringh_batch batch = {.max_chains = ring->size, .max_segs = ring->size};
	uint16_t *resubmit = NULL;
	struct look *look = NULL;
	bool behind = false;

	/* Behind an IOMMU nobody but the function knows where the ring is. */
	if (!(features & UINT64_C(1) << VIRTIO_F_RING_PACKED) || !dev->class->in_pairs ||
		queue % 2 == 0 || vfn_iommu_is(dev->guest) ||
		(!tracked && ring->avail == front_end))
		return false;
	look = look_new(dev, queue, features, ring);
	batch.chain = calloc(ring->size, sizeof(batch.chain[0]));
	batch.seg = calloc(ring->size, sizeof(batch.seg[0]));
	resubmit = calloc(ring->size, sizeof(*resubmit));
	if (look != NULL && batch.chain != NULL && batch.seg != NULL && resubmit != NULL &&
		(!tracked || look_region(dev, queue, look, resubmit))) {
		behind = fetch_all(&look->ring, &batch) &&
			is_used(dev, ring, vringh_get_state(&look->ring).avail, front_end);
		if (behind)
			vringh_complete(&look->ring, batch.chain, batch.nb_chains);
		else
			vringh_discard(&look->ring, batch.chain, batch.nb_chains);
	}
	if (behind) {
		vfn_inflight_forget(dev, queue);
		ring->avail = ring->used = front_end;
		if (ring->callfd >= 0)
			vfn_signal(ring->callfd);
		DEV_LOG(NOTICE, dev,
			"queue %u: its front-end has used up what the guest sent meanwhile, it "
			"goes on at 0x%x; %u before that are dropped",
			queue, front_end, batch.nb_chains);
	}
	free(look);
	free(batch.chain);
	free(batch.seg);
	free(resubmit);
	return behind;
}
