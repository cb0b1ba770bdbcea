/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A guest's rings as librte_vhost tells of them, and as a function has left them that ended. With
 * the device's lock held, while the guest has the device.
 */

#include <errno.h>
#include <stdlib.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <rte_vhost.h>

#include <vringh.h>

#include "vfn_drv.h"

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

/* What librte_vhost knows of a ring. */
int
vfn_ring_get(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	struct rte_vhost_vring vring;
	uint64_t features = 0;
	uint16_t used_idx;

	if (rte_vhost_get_vhost_vring(dev->guest->vid, queue, &vring) < 0 ||
		rte_vhost_get_vring_base(dev->guest->vid, queue, &ring->avail, &ring->used) < 0 ||
		rte_vhost_get_negotiated_features(dev->guest->vid, &features) < 0) {
		DEV_LOG(ERR, dev, "queue %u: librte_vhost does not tell its ring", queue);
		return -EINVAL;
	}
	/* The three areas are unions with those of a packed ring. */
	if (!vfn_memory_gpa(dev, vring.desc, &ring->desc) ||
		!vfn_memory_gpa(dev, vring.avail, &ring->driver) ||
		!vfn_memory_gpa(dev, vring.used, &ring->device)) {
		DEV_LOG(ERR, dev, "queue %u: a ring area is not in the guest's memory", queue);
		return -EINVAL;
	}
	if (!(features & UINT64_C(1) << VIRTIO_F_RING_PACKED) &&
		!vfn_ring_used_idx(dev, ring, &used_idx)) {
		DEV_LOG(ERR, dev, "queue %u: its used ring is not in the guest's memory", queue);
		return -EINVAL;
	}
	/* 0 if the front-end did not say: then it is the address of the ring. */
	ring->dirty = vring.log_guest_addr != 0 ? vring.log_guest_addr : ring->device;
	ring->size = vring.size;
	ring->inflight = ring->inflight_len = 0;
	/* A poller that sleeps would not see a store, so it gets nothing that lets it sleep. */
	ring->kickfd = dev->doorbells.fd >= 0 ? -1 : vring.kickfd;
	ring->callfd = vring.callfd;
	return 0;
}

/* As the next function on it would find out. */
static bool
packed_left(struct vfn_dev *dev, uint16_t queue, uint64_t features, struct vfn_vpci_ring *ring)
{
	const struct vfn_inflight_region *region = &dev->inflight.region[queue];
	struct vringh_config cfg = {
		.packed = true,
		.indirect = features & UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC,
		.in_order = features & UINT64_C(1) << VIRTIO_F_IN_ORDER,
		.reads_only = queue % 2 == 1,
		.size = ring->size,
		.desc = ring->desc,
		.driver = ring->driver,
		.device = ring->device,
		.state = {.avail = ring->avail, .used = ring->used},
	};
	struct {
		struct vringh ring;
		struct vringh_inflight inflight;
		struct vringh_mem mem;
		struct vringh_region table[];
	} *look = NULL;
	uint16_t *resubmit = NULL;
	struct vringh_state state;
	bool known;

	if (region->map == NULL)
		return false;
	look = calloc(1, sizeof(*look) + dev->memory.nb_regions * sizeof(look->table[0]));
	resubmit = calloc(ring->size, sizeof(*resubmit));
	if (look != NULL && resubmit != NULL) {
		look->mem.table = look->table;
		vfn_memory_table(&dev->memory, &look->mem);
		cfg.mem = &look->mem;
	}
	known = cfg.mem != NULL && vringh_init(&look->ring, &cfg) == 0 &&
		vringh_set_inflight(
			&look->ring, &look->inflight, region->host, region->len, resubmit) >= 0 &&
		vringh_rewind(&look->ring) == 0;
	if (known) {
		state = vringh_get_state(&look->ring);
		ring->avail = state.avail;
		ring->used = state.used;
	}
	free(look);
	free(resubmit);
	return known;
}

/*
 * Where the function that has ended left a ring: it completes in the order in which it fetches, so
 * that one index says all of a split one; of a packed one the in-flight region tells. False: nobody
 * knows.
 */
bool
vfn_ring_left(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	uint64_t features = 0;
	uint16_t used_idx;

	if (vfn_ring_get(dev, queue, ring) < 0 ||
		rte_vhost_get_negotiated_features(dev->guest->vid, &features) < 0)
		return false;
	if (features & UINT64_C(1) << VIRTIO_F_RING_PACKED)
		return packed_left(dev, queue, features, ring);
	if (!vfn_ring_used_idx(dev, ring, &used_idx))
		return false;
	ring->avail = ring->used = used_idx;
	return true;
}
