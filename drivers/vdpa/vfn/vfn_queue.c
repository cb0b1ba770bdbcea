/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A device's queues: on which ring each runs, and where it stands when it stops. With the device's
 * lock held, while a guest has the device; on librte_vhost's message thread, or on the one that
 * watches an endpoint.
 */

#include <errno.h>
#include <string.h>

#include <linux/virtio_config.h>

#include <rte_common.h>
#include <rte_cycles.h>

#include <vfn_signal.h>

#include "vfn_drv.h"
#include "vfn_trace.h"

static int
ring_start(struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring, uint64_t features)
{
	return vfn_shadow_needed(dev) ?
		vfn_shadow_start(dev, queue, ring, features & dev->pci.features) :
		vfn_vpci_queue_start(&dev->pci, queue, ring);
}

/* On another function, since the one that ran it ended. */
static int
ring_again(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring, uint64_t features)
{
	uint16_t used_idx;

	if (dev->guest->left[queue] == VFN_RING_UNKNOWN) {
		DEV_LOG(ERR, dev, "queue %u stays off: nobody knows where its ring stands", queue);
		return -ENODATA;
	}
	/* The function may have gone on after it was given up. */
	if (!(features & UINT64_C(1) << VIRTIO_F_RING_PACKED) &&
		vfn_ring_used_idx(dev, ring, &used_idx))
		ring->avail = ring->used = used_idx;
	return 0;
}

int
vfn_queue_start(struct vfn_dev *dev, uint16_t queue)
{
	struct vfn_vpci_ring ring;
	uint64_t features = 0;
	uint16_t front_end = 0, base = 0;
	int ret = 0;

	if (dev->started[queue])
		return 0;
	if (!vfn_ctrl_can_start(dev, queue)) {
		/* virtio-user may set up more rings than the device has; they stay off. */
		DEV_LOG(WARNING, dev, "queue %u is ignored, there are %u %s", queue, dev->max_pairs,
			dev->class->unit);
		return 0;
	}
	if (dev->shadow[queue] != NULL) {
		ret = vfn_vpci_queue_reset(&dev->pci, queue);
		if (ret == 0 && vfn_shadow_needed(dev))
			vfn_shadow_spare(dev, queue);
		else if (ret == 0)
			ret = vfn_shadow_free(dev, queue);
	}
	if (ret == 0)
		ret = vfn_ring_get(dev, queue, &ring);
	if (ret == 0)
		ret = vfn_guest_features(dev->guest, &features);
	if (ret == 0 && dev->guest->left[queue] != VFN_RING_KEPT)
		ret = ring_again(dev, queue, &ring, features);
	if (ret == 0) {
		front_end = ring.avail;
		vfn_saved_take_position(dev, queue, &ring);
		base = ring.avail;
		ret = vfn_inflight_attach(
			dev, queue, &ring, features & UINT64_C(1) << VIRTIO_F_RING_PACKED);
	}
	if (ret == 0 && vfn_ring_catch_up(dev, queue, &ring, features, front_end))
		base = ring.avail;
	if (ret == 0) {
		ret = ring_start(dev, queue, &ring, features);
		if (ret < 0 && vfn_inflight_renew(dev, queue, &ring, base))
			ret = ring_start(dev, queue, &ring, features);
	}
	/* If that fails, too, the function is failed. */
	if (ret < 0 && vfn_vpci_queue_off(&dev->pci, queue) < 0)
		ret = -EIO;
	dev->started[queue] = ret == 0;
	if (ret == 0) {
		dev->guest->left[queue] = VFN_RING_KEPT;
		DEV_LOG(DEBUG, dev, "queue %u started at 0x%x", queue, ring.avail);
		vfn_trace_queue(dev->name, queue, true, ring.avail, ring.used);
		vfn_notify_queue(dev, queue);
	}
	return ret;
}

/*
 * Of a queue that stands still, or, as far as it is known, of a failed function. GET_VRING_BASE,
 * and the next start, answer from here.
 */
static void
position_save(struct vfn_dev *dev, uint16_t queue)
{
	struct vfn_vpci_ring ring = {0};
	bool known = vfn_vpci_queue_leave(&dev->pci, queue, &ring) != -ENODEV;
	struct vfn_guest *guest = dev->guest;

	guest->left[queue] = known ? VFN_RING_KEPT : VFN_RING_LEFT;
	known |= vfn_shadow_leave(dev, queue, &ring);
	if (!known) {
		known = vfn_ring_left(dev, queue, &ring);
		ring.dirty = UINT64_MAX; /* not where it was logged, maybe */
		if (known)
			DEV_LOG(WARNING, dev, "queue %u: its ring tells that it stood at 0x%x",
				queue, ring.avail);
	}
	dev->started[queue] = false;
	/* What was left is as exact as an orderly stop. */
	guest->stopped[queue] = known && (!dev->pci.failed || guest->left[queue] == VFN_RING_LEFT);
	guest->stopped_at[queue] = ring.avail;
	if (!known) {
		guest->left[queue] = VFN_RING_UNKNOWN;
		DEV_LOG(ERR, dev, "queue %u is off, and nobody knows where it stood", queue);
		return;
	}
	vfn_lm_queue_stopped(dev, queue, ring.dirty);
	vfn_iommu_ring_stopped(guest, queue, ring.avail);
	if (rte_vhost_set_vring_base(guest->vid, queue, ring.avail, ring.used) < 0)
		DEV_LOG(ERR, dev, "queue %u: librte_vhost does not take its position", queue);
	DEV_LOG(DEBUG, dev, "queue %u stopped at 0x%x", queue, ring.avail);
	vfn_trace_queue(dev->name, queue, false, ring.avail, ring.used);
}

int
vfn_queue_stop(struct vfn_dev *dev, uint16_t queue)
{
	int ret;

	if (!dev->started[queue])
		return 0;
	ret = vfn_vpci_queue_suspend(&dev->pci, queue);
	position_save(dev, queue);
	return ret;
}

/* Where all stand. */
void
vfn_queues_leave(struct vfn_dev *dev)
{
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues; q++)
		if (dev->started[q])
			position_save(dev, q);
}

/* Everything stands still on return; -EIO if the function does not do that: it is failed. */
int
vfn_queues_stop(struct vfn_dev *dev)
{
	uint64_t begin = rte_get_timer_cycles();

	if (vfn_vpci_suspend(&dev->pci) < 0)
		DEV_LOG(ERR, dev,
			"is reset while it runs: what the guest gets to know of the "
			"queues' positions is not exact");
	vfn_queues_leave(dev);
	dev->stop_us[0] = (rte_get_timer_cycles() - begin) * 1000000 / rte_get_timer_hz();
	dev->stops++;
	dev->stop_us[1] = RTE_MAX(dev->stop_us[0], dev->stop_us[1]);
	DEV_LOG(DEBUG, dev, "stands still after %u us", dev->stop_us[0]);
	return dev->pci.failed ? -EIO : 0;
}

/* Stop what runs, to start it again in another way, with nothing lost in between. */
int
vfn_queues_pause(struct vfn_dev *dev)
{
	bool any = false;
	int ret = 0;
	uint16_t q;

	memcpy(dev->paused, dev->started, sizeof(dev->paused));
	for (q = 0; q < dev->pci.nb_queues; q++)
		any |= dev->paused[q];
	if (any)
		ret = vfn_queues_stop(dev);
	for (q = 0; q < dev->pci.nb_queues && ret == 0; q++) {
		if (!dev->paused[q])
			continue;
		ret = vfn_vpci_queue_reset(&dev->pci, q);
		if (ret == 0)
			vfn_shadow_spare(dev, q);
	}
	return ret;
}

/*
 * As long as one of them is off senders wait, so that the order does not matter. One that could not
 * be started before is tried again.
 */
void
vfn_queues_resume(struct vfn_dev *dev)
{
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues && !dev->pci.failed; q++)
		if (dev->paused[q] || (dev->state == VFN_RUNNING && dev->guest->wanted[q]))
			vfn_queue_start(dev, q);
	memset(dev->paused, 0, sizeof(dev->paused));
	vfn_shadow_resume(dev);
}

/* The rings that run are broken, as the front-end may want to know (vhost-user, SET_VRING_ERR). */
void
vfn_queues_error(struct vfn_dev *dev)
{
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues; q++)
		if (dev->started[q] && dev->guest->error_fd[q] >= 0)
			vfn_signal(dev->guest->error_fd[q]);
}
