/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Live migration: the guest's dirty log is handed to the function, which logs what it writes. On
 * librte_vhost's message thread, with the device's lock held.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <rte_common.h>
#include <rte_vhost.h>

#include "vfn_drv.h"
#include "vfn_trace.h"

#define PAGE_SHIFT 12 /* of the log */

/* Bus address of the log, in VFN_DMA_OWN. */
#define LOG_IOVA 0

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

/*
 * A front-end may replace the log at any time, and nobody tells when librte_vhost unmaps the old
 * one: so it is mapped once more.
 */
static int
log_map(struct vfn_dev *dev)
{
	uint64_t base = 0, len = 0;
	struct vfn_log *log = &dev->log;

	rte_vhost_get_log_base(dev->guest->vid, &base, &len);
	if (base == 0 || len == 0)
		return -ENOENT;
	log->bitmap = vfn_map_again(base, len, &log->map, &log->map_len);
	if (log->bitmap == NULL)
		return -errno;
	log->len = len;
	return 0;
}

static void
log_mark(struct vfn_log *log, uint64_t addr, uint64_t len)
{
	uint64_t page = addr >> PAGE_SHIFT, last = (addr + len - 1) >> PAGE_SHIFT;

	for (; page <= last && page / 8 < log->len; page++)
		__atomic_fetch_or(&log->bitmap[page / 8], 1 << page % 8, __ATOMIC_RELAXED);
}

/* For as long as nobody logged, anything may have been written. */
static void
log_everything(struct vfn_dev *dev)
{
	struct rte_vhost_memory *mem = NULL;
	uint32_t i;

	if (rte_vhost_get_mem_table(dev->guest->vid, &mem) < 0)
		return;
	for (i = 0; i < mem->nregions; i++)
		log_mark(&dev->log, mem->regions[i].guest_phys_addr, mem->regions[i].size);
	free(mem);
	DEV_LOG(WARNING, dev, "dirty log: it came late, the whole memory is dirty");
}

static void
merge_range(struct vfn_log *to, const struct vfn_log *from, uint64_t addr, uint64_t size)
{
	uint64_t at = addr >> PAGE_SHIFT >> 3, stop = ((addr + size - 1) >> PAGE_SHIFT >> 3) + 1;
	uint64_t end;

	stop = RTE_MIN(stop, RTE_MIN(to->len, from->len));
	for (; at < stop; at = end) {
		end = RTE_MIN(at + 4096, stop);
		if (memcmp(to->bitmap + at, from->bitmap + at, end - at) == 0)
			continue;
		for (; at < end; at++)
			if (from->bitmap[at] != 0)
				__atomic_fetch_or(
					&to->bitmap[at], from->bitmap[at], __ATOMIC_RELAXED);
	}
}

/* Where a queue's device area is logged if that was said; bytes, or 0. */
static uint32_t
ring_logged(struct vfn_dev *dev, uint16_t queue, uint64_t *addr)
{
	struct rte_vhost_vring vring;
	uint64_t features = 0;

	if (rte_vhost_get_vhost_vring(dev->guest->vid, queue, &vring) < 0 ||
		vring.log_guest_addr == 0)
		return 0;
	*addr = vring.log_guest_addr;
	rte_vhost_get_negotiated_features(dev->guest->vid, &features);
	if (features & UINT64_C(1) << VIRTIO_F_RING_PACKED)
		return sizeof(struct vring_packed_desc_event);
	return sizeof(struct vring_used) + vring.size * sizeof(struct vring_used_elem) +
		sizeof(uint16_t);
}

/*
 * A log that was replaced has marks that nobody has read, of what was written until the function
 * knew of the new one. Often both are the same memory. What is between the guest's regions is
 * left out: such a log may be large and have holes, which reading would fill.
 */
static void
log_merge(struct vfn_dev *dev, const struct vfn_log *old)
{
	struct rte_vhost_memory *mem = NULL;
	uint64_t addr;
	uint32_t i, len;

	if (rte_vhost_get_mem_table(dev->guest->vid, &mem) < 0)
		return;
	for (i = 0; i < mem->nregions; i++)
		merge_range(&dev->log, old, mem->regions[i].guest_phys_addr, mem->regions[i].size);
	free(mem);
	for (i = 0; i < dev->nb_queues; i++) {
		len = ring_logged(dev, i, &addr);
		if (len > 0)
			merge_range(&dev->log, old, addr, len);
	}
}

/* The function logs no more. */
static void
log_off(struct vfn_dev *dev)
{
	if (dev->log.on && dev->lm == VFN_LM_HW) {
		vfn_pci_log_stop(dev);
		dev->link->ops->dma_unmap(dev->link, VFN_DMA_OWN, LOG_IOVA, dev->log.len);
	}
	dev->log.on = false;
}

/* Queues that start from now on are shadowed; what may go wrong with each is seen there. */
static int
shadow_on(struct vfn_dev *dev)
{
	struct rte_vhost_memory *mem = NULL;
	int ret = 0;
	uint32_t i;

	if (rte_vhost_get_mem_table(dev->guest->vid, &mem) < 0)
		return -EINVAL;
	for (i = 0; i < mem->nregions; i++)
		if ((mem->regions[i].guest_phys_addr + mem->regions[i].size - 1) >>
			(PAGE_SHIFT + 3) >= dev->log.len)
			ret = -EINVAL;
	free(mem);
	dev->log.on = ret == 0;
	return ret;
}

static int
log_on(struct vfn_dev *dev)
{
	struct vfn_dma_map map = {
		.space = VFN_DMA_OWN,
		.iova = LOG_IOVA,
		.len = dev->log.len,
		.host = dev->log.bitmap,
		.fd = -1,
		.readable = true,
		.writable = true,
	};
	int ret;

	if (dev->lm == VFN_LM_SHADOW)
		return shadow_on(dev);
	ret = dev->link->ops->dma_map(dev->link, &map);
	if (ret < 0)
		return ret;
	dev->log.on = true;
	ret = vfn_pci_log_start(dev, LOG_IOVA, dev->log.len);
	if (ret < 0)
		log_off(dev);
	return ret;
}

/*
 * Map the log that librte_vhost has now, and bring what is known into it. It is never taken for
 * the one before: with the second that is replaced, the first one's address is used again.
 */
static int
log_renew(struct vfn_dev *dev, bool on)
{
	struct vfn_log *log = &dev->log, old = *log;
	int ret;

	log_off(dev);
	log->map = NULL;
	ret = log_map(dev);
	if (ret == 0 && on)
		ret = log_on(dev);
	if (ret < 0 && (on || !log->missed)) { /* said once */
		log->refusals++;
		vfn_trace_lm(dev->name, "refused");
		DEV_LOG(ERR, dev, "dirty log: %s",
			ret == -ENOENT		? "the front-end wants it before it has given one" :
				ret == -ENODATA ? "its file is shorter than it says" :
				ret != -EINVAL	? strerror(-ret) :
				dev->lm == VFN_LM_HW ? "the function refuses it, it is too short" :
						       "it is too short");
	}
	log->missed |= ret < 0;
	if (log->map != NULL && old.map != NULL)
		log_merge(dev, &old);
	if (old.map != NULL)
		munmap(old.map, old.map_len);
	return ret;
}

static void
log_end(struct vfn_dev *dev)
{
	struct vfn_log *log = &dev->log;

	log_off(dev);
	if (log->map != NULL)
		munmap(log->map, log->map_len);
	log->map = NULL;
	log->wanted = log->missed = false;
}

static void
update(struct vfn_dev *dev, uint64_t features)
{
	struct vfn_log *log = &dev->log;

	if (!(features & UINT64_C(1) << VHOST_F_LOG_ALL)) {
		if (log->wanted) {
			DEV_LOG(INFO, dev, "dirty log off");
			vfn_trace_lm(dev->name, "off");
		}
		log_end(dev);
		return;
	}
	log->wanted = true;
	if (log_renew(dev, true) < 0)
		return;
	log->starts++;
	vfn_trace_lm(dev->name, "on");
	DEV_LOG(INFO, dev, "dirty log on, %" PRIu64 " bytes", log->len);
	if (log->missed)
		log_everything(dev);
	log->missed = false;
}

/*
 * Bring logging in line with the negotiated features and the log that librte_vhost has now.
 * Called wherever one of them may have changed.
 */
void
vfn_lm_update(struct vfn_dev *dev, uint64_t features)
{
	/* Whether there is a log decides on which rings the function's queues run. */
	bool restart = dev->lm == VFN_LM_SHADOW &&
		(dev->log.wanted || (features & UINT64_C(1) << VHOST_F_LOG_ALL));

	if (restart)
		vfn_conf_pause(dev);
	update(dev, features);
	if (restart)
		vfn_conf_resume(dev);
}

/*
 * A queue stands still whose device area was logged at an address. With QEMU the one to be logged
 * is told after logging has begun; should it be another, all of the area is dirty there.
 */
void
vfn_lm_queue_stopped(struct vfn_dev *dev, uint16_t queue, uint64_t logged)
{
	uint64_t addr;
	uint32_t len = dev->log.map != NULL ? ring_logged(dev, queue, &addr) : 0;

	if (len > 0 && addr != logged)
		log_mark(&dev->log, addr, len);
}

/* Every queue stands still. */
void
vfn_lm_stop(struct vfn_dev *dev)
{
	if (dev->log.wanted) {
		log_renew(dev, false);
		if (dev->log.missed && dev->log.map != NULL)
			log_everything(dev);
	}
	log_end(dev);
}

/*
 * The guest has arrived and can't announce itself. There is nobody to be told: a function's port
 * is looped back or wired to one other, and neither learns addresses.
 */
void
vfn_lm_announce(struct vfn_dev *dev)
{
	dev->log.announced++;
	vfn_trace_lm(dev->name, "announced");
	DEV_LOG(DEBUG, dev, "the guest has migrated here, announced by the front-end");
}
