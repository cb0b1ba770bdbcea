/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A guest's rings as librte_vhost tells of them. With the device's lock held, while the guest has
 * the device.
 */

#include <errno.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <rte_vhost.h>

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
