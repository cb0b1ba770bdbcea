/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Live migration: the guest's dirty log is handed to the function, which logs what it writes. On
 * librte_vhost's message thread, or that of an endpoint, with the device's lock held.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <rte_common.h>
#include <rte_vhost.h>

#include "vfn_drv.h"
#include "vfn_trace.h"

#define PAGE_SHIFT 12 /* of the dirty log */

/* Bus address of the dirty log, in VFN_DMA_OWN. */
#define DIRTY_IOVA 0

static const char *const lm_names[] = {
	[VFN_LM_OFF] = "off",
	[VFN_LM_HW] = "hw",
	[VFN_LM_SHADOW] = "shadow",
};

const char *
vfn_lm_name(enum vfn_lm lm)
{
	return lm_names[lm];
}

static void
mark_bits(struct vfn_map *dirty, uint64_t byte, uint8_t bits)
{
	if (byte < dirty->len)
		__atomic_fetch_or(&dirty->host[byte], bits, __ATOMIC_RELAXED);
}

/*
 * All of a range of guest addresses; what is behind the log's end is left out. Guests may claim
 * terabytes, and the message thread waits: so whole bytes are stored. Meanwhile the front-end may
 * take marks away and pollers may set others; a mark too many does no harm.
 */
static void
dirty_mark(struct vfn_map *dirty, uint64_t addr, uint64_t len)
{
	const uint64_t first = addr >> PAGE_SHIFT, last = (addr + len - 1) >> PAGE_SHIFT;
	const uint8_t from = 0xff << first % 8, to = 0xff >> (7 - last % 8);
	const uint64_t at = first / 8, end = last / 8;

	if (at == end) {
		mark_bits(dirty, at, from & to);
		return;
	}
	mark_bits(dirty, at, from);
	mark_bits(dirty, end, to);
	if (at + 1 < RTE_MIN(end, dirty->len))
		memset(dirty->host + at + 1, 0xff, RTE_MIN(end, dirty->len) - at - 1);
}

/* For as long as nobody logged, anything may have been written. */
static void
dirty_everything(struct vfn_dev *dev, struct vfn_map *dirty)
{
	uint32_t i;

	for (i = 0; i < dev->memory.nb_regions; i++)
		dirty_mark(dirty, dev->memory.region[i].gpa, dev->memory.region[i].size);
	DEV_LOG(WARNING, dev, "dirty log: it came late, the whole memory is dirty");
}

/* Where a queue's device area is logged if that was said; bytes, or 0. */
static uint32_t
ring_dirty(struct vfn_dev *dev, uint16_t queue, uint64_t *addr)
{
	struct rte_vhost_vring vring;
	uint64_t features = 0;

	if (rte_vhost_get_vhost_vring(dev->guest->vid, queue, &vring) < 0 ||
		vring.log_guest_addr == 0)
		return 0;
	*addr = vring.log_guest_addr;
	vfn_guest_features(dev->guest, &features);
	if (features & UINT64_C(1) << VIRTIO_F_RING_PACKED)
		return sizeof(struct vring_packed_desc_event);
	return sizeof(struct vring_used) + vring.size * sizeof(struct vring_used_elem) +
		sizeof(uint16_t);
}

/* Nobody logs any more; where the function has failed it may, or its poller, which has our job. */
static int
dirty_off(struct vfn_dev *dev)
{
	int ret = dev->pci.failed ? -EIO : 0;

	if (ret == 0 && dev->dirty.on && dev->lm == VFN_LM_HW) {
		ret = vfn_vpci_dirty_stop(&dev->pci);
		if (ret == 0)
			ret = vfn_vpci_unmap(
				&dev->pci, VFN_DMA_OWN, DIRTY_IOVA, dev->dirty.map->len);
	}
	if (ret == 0)
		dev->dirty.on = false;
	return ret;
}

/* Does it reach as far as the guest's memory? */
static bool
dirty_covers(const struct vfn_dev *dev, const struct vfn_map *dirty)
{
	return (dev->memory.end - 1) >> (PAGE_SHIFT + 3) < dirty->len;
}

/* Memory for every shadow ring that will be needed: queues that stop here start again there. */
static int
shadow_prepare(struct vfn_dev *dev, uint64_t features)
{
	struct vfn_vpci_ring ring;
	int ret = 0;
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues && ret == 0; q++)
		if (dev->started[q] && vfn_ring_get(dev, q, &ring) == 0)
			ret = vfn_shadow_prepare(dev, q, &ring, features & dev->pci.features);
	return ret;
}

static int
dirty_on(struct vfn_dev *dev)
{
	struct vfn_dma_map map = {
		.space = VFN_DMA_OWN,
		.iova = DIRTY_IOVA,
		.len = dev->dirty.map->len,
		.host = dev->dirty.map->host,
		.fd = dev->dirty.map->fd,
		.offset = dev->dirty.map->offset,
		.readable = true,
		.writable = true,
	};
	int ret;

	if (dev->lm == VFN_LM_SHADOW) {
		/* Queues that start from now on are shadowed. */
		dev->dirty.on = true;
		return 0;
	}
	ret = vfn_vpci_map(&dev->pci, &map);
	if (ret < 0)
		return ret;
	dev->dirty.on = true;
	ret = vfn_vpci_dirty_start(&dev->pci, DIRTY_IOVA, dev->dirty.map->len);
	if (ret < 0 && dirty_off(dev) < 0)
		return -EIO;
	return ret;
}

/* Can the guest's queues be logged to it? Changes nothing but what memory is held ready. */
static int
dirty_check(struct vfn_dev *dev, const struct vfn_map *dirty, uint64_t features)
{
	if (dirty == NULL)
		return -ENOENT;
	if (dev->lm != VFN_LM_SHADOW)
		return 0;
	return dirty_covers(dev, dirty) ? shadow_prepare(dev, features) : -EINVAL;
}

static void
dirty_refused(struct vfn_dev *dev, int ret)
{
	dev->dirty.refusals++;
	vfn_trace_lm(dev->name, "refused");
	DEV_LOG(ERR, dev, "dirty log: %s",
		ret == -ENOENT		     ? "the front-end wants it before it has given one" :
			ret == -ENOMEM	     ? "no memory for shadow rings" :
			dev->pci.failed	     ? "the function has failed" :
			ret != -EINVAL	     ? strerror(-ret) :
			dev->lm == VFN_LM_HW ? "the function refuses it, it is too short" :
					       "it is too short");
}

/*
 * Take the log that the front-end gave last. What is marked in the one before it reads there, once
 * it knows that nothing is any more.
 */
static int
dirty_take(struct vfn_dev *dev)
{
	int ret = dirty_off(dev);

	if (ret < 0)
		return ret;
	vfn_map_put(dev->dirty.map);
	dev->dirty.map = vfn_map_get(dev->guest->dirty);
	return 0;
}

/* The function does not reach it any more. */
void
vfn_lm_release(struct vfn_dev *dev)
{
	struct vfn_dirty *dirty = &dev->dirty;

	if (dirty->map != NULL && vfn_map_lost(dirty->map))
		DEV_LOG(ERR, dev, "dirty log: its file was cut off, marks are missing");
	vfn_map_put(dirty->map);
	dirty->map = NULL;
	dirty->on = dirty->wanted = dirty->missed = false;
}

static void
dirty_end(struct vfn_dev *dev)
{
	if (dirty_off(dev) == 0)
		vfn_lm_release(dev);
}

static void
update(struct vfn_dev *dev, uint64_t features)
{
	struct vfn_dirty *dirty = &dev->dirty;
	int ret;

	if (!(features & UINT64_C(1) << VHOST_F_LOG_ALL)) {
		if (dirty->wanted) {
			DEV_LOG(INFO, dev, "dirty log off");
			vfn_trace_lm(dev->name, "off");
		}
		dirty_end(dev);
		return;
	}
	dirty->wanted = true;
	ret = dirty_take(dev);
	if (ret == 0)
		ret = dirty_on(dev);
	if (ret < 0) {
		dirty->missed = true;
		dirty_refused(dev, ret);
		return;
	}
	dirty->starts++;
	vfn_trace_lm(dev->name, "on");
	DEV_LOG(INFO, dev, "dirty log on, %" PRIu64 " bytes", dirty->map->len);
	if (dirty->missed)
		dirty_everything(dev, dirty->map);
	dirty->missed = false;
}

/*
 * Bring logging in line with the negotiated features and the log that the front-end has given.
 * Called wherever one of them may have changed.
 */
void
vfn_lm_update(struct vfn_dev *dev, uint64_t features)
{
	bool wanted = features & UINT64_C(1) << VHOST_F_LOG_ALL, restart, hold;
	int ret = wanted ? dirty_check(dev, dev->guest->dirty, features) : 0;
	uint16_t q;

	if (wanted && dev->dirty.on && dev->dirty.map == dev->guest->dirty)
		return;
	/*
	 * Whether there is a log decides on which rings the function's queues run; and nothing may
	 * be written between one log and the next.
	 */
	restart = dev->lm == VFN_LM_SHADOW && (dev->dirty.wanted || wanted);
	hold = dev->lm == VFN_LM_HW && dev->dirty.on && wanted;
	if (ret < 0) {
		/* Nothing is changed but that marks are missing from now on. */
		dev->dirty.wanted = dev->dirty.missed = true;
		dirty_refused(dev, ret);
		if (!dev->dirty.on)
			vfn_shadow_unprepare(dev);
		return;
	}
	if (restart)
		ret = vfn_queues_pause(dev);
	else if (hold)
		ret = vfn_vpci_suspend(&dev->pci);
	if (ret < 0)
		dev->dirty.wanted = dev->dirty.missed = wanted;
	else
		update(dev, features);
	for (q = 0; q < dev->pci.nb_queues && hold && ret == 0; q++)
		if (dev->started[q])
			ret = vfn_vpci_queue_resume(&dev->pci, q);
	if (restart)
		vfn_queues_resume(dev);
	if (!dev->dirty.on)
		vfn_shadow_unprepare(dev);
	vfn_life_check(dev);
}

/* SET_LOG_BASE. 0, or why it is refused. */
int
vfn_lm_set_dirty(
	struct vfn_dev *dev, struct vfn_guest *guest, int fd, uint64_t offset, uint64_t len)
{
	struct vfn_map *map = NULL;
	uint64_t features;
	int ret = -EINVAL;

	if (offset % sysconf(_SC_PAGESIZE) == 0) {
		map = vfn_map_fd(fd, offset, len);
		ret = -errno;
	}
	if (map == NULL) {
		dev->dirty.refusals++;
		DEV_LOG(ERR, dev,
			"dirty log of %" PRIu64 " bytes at 0x%" PRIx64
			" of its file is refused: %s",
			len, offset,
			ret == -ENODATA	       ? "its file is shorter than it says" :
				ret == -EACCES ? "its file is another process's" :
						 strerror(-ret));
		return ret;
	}
	vfn_map_put(guest->dirty);
	guest->dirty = map;
	if (dev->state == VFN_RUNNING && dev->guest == guest && dev->dirty.wanted &&
		vfn_guest_features(guest, &features) == 0)
		vfn_lm_update(dev, features);
	return 0;
}

/*
 * A queue stands still whose device area was logged at an address. With QEMU the one to be logged
 * is told after logging has begun; should it be another, all of the area is dirty there.
 */
void
vfn_lm_queue_stopped(struct vfn_dev *dev, uint16_t queue, uint64_t logged)
{
	uint64_t addr;
	uint32_t len = dev->dirty.map != NULL ? ring_dirty(dev, queue, &addr) : 0;

	if (len > 0 && addr != logged)
		dirty_mark(dev->dirty.map, addr, len);
}

/* No queue runs, but for those of a failed function. */
void
vfn_lm_stop(struct vfn_dev *dev)
{
	/* An endpoint that is gone has written, and had no time to mark it. */
	bool missed =
		dev->dirty.missed || (dev->remote != NULL && dev->pci.failed && dev->dirty.wanted);

	if (missed && dev->guest->dirty != NULL)
		dirty_everything(dev, dev->guest->dirty);
	dirty_end(dev);
}

/*
 * The guest has arrived and can't announce itself. Nobody is told: a function that is looped back
 * or wired to another has nobody behind it who learns addresses, and behind a DPDK port they are
 * learnt from what the guest sends next.
 */
void
vfn_lm_announce(struct vfn_dev *dev)
{
	dev->dirty.announced++;
	vfn_trace_lm(dev->name, "announced");
	DEV_LOG(DEBUG, dev, "the guest has migrated here, announced by the front-end");
}
