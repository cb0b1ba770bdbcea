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
#include <unistd.h>

#include <linux/virtio_config.h>

#include <rte_vhost.h>

#include "vfn_drv.h"
#include "vfn_trace.h"

#define PAGE_SHIFT 12 /* of the log */

/* Bus address of the log, in VFN_DMA_OWN. */
#define LOG_IOVA 0

static const char *const lm_names[] = {
	[VFN_LM_OFF] = "off",
	[VFN_LM_HW] = "hw",
};

const char *
vfn_lm_name(enum vfn_lm lm)
{
	return lm_names[lm];
}

/*
 * Map what librte_vhost has mapped a second time: a front-end may replace the log at any time,
 * and nobody tells when librte_vhost unmaps the old one.
 */
static int
log_map(struct vfn_log *log, uint64_t base, uint64_t len)
{
	size_t page = sysconf(_SC_PAGESIZE), offset = base % page;
	size_t map_len = (offset + len + page - 1) / page * page;
	/* An old size of 0 makes a copy of a shared mapping. */
	void *map = mremap((void *)(uintptr_t)(base - offset), 0, map_len, MREMAP_MAYMOVE);

	if (map == MAP_FAILED)
		return -errno;
	log->base = base;
	log->map = map;
	log->map_len = map_len;
	log->offset = offset;
	log->len = len;
	return 0;
}

static void
log_unmap(struct vfn_log *log)
{
	munmap(log->map, log->map_len);
	log->map = NULL;
	log->base = 0;
}

/* For as long as nobody logged, anything may have been written. */
static void
log_everything(struct vfn_dev *dev)
{
	struct rte_vhost_memory *mem = NULL;
	uint8_t *bitmap = dev->log.map + dev->log.offset;
	uint32_t i;

	if (rte_vhost_get_mem_table(dev->guest->vid, &mem) < 0)
		return;
	for (i = 0; i < mem->nregions; i++) {
		const struct rte_vhost_mem_region *r = &mem->regions[i];
		uint64_t page = r->guest_phys_addr >> PAGE_SHIFT;
		uint64_t last = (r->guest_phys_addr + r->size - 1) >> PAGE_SHIFT;

		for (; page <= last && page / 8 < dev->log.len; page++)
			__atomic_fetch_or(&bitmap[page / 8], 1 << page % 8, __ATOMIC_RELAXED);
	}
	free(mem);
	DEV_LOG(WARNING, dev, "dirty log: it came late, the whole memory is dirty");
}

static void
log_detach(struct vfn_dev *dev)
{
	if (dev->log.map == NULL)
		return;
	vfn_pci_log_stop(dev);
	dev->link->ops->dma_unmap(dev->link, VFN_DMA_OWN, LOG_IOVA, dev->log.len);
	log_unmap(&dev->log);
}

static int
log_attach(struct vfn_dev *dev, uint64_t base, uint64_t len)
{
	struct vfn_dma_map map = {.space = VFN_DMA_OWN,
		.iova = LOG_IOVA,
		.len = len,
		.fd = -1,
		.readable = true,
		.writable = true};
	int ret = log_map(&dev->log, base, len);

	if (ret < 0)
		return ret;
	map.host = dev->log.map + dev->log.offset;
	ret = dev->link->ops->dma_map(dev->link, &map);
	if (ret == 0) {
		ret = vfn_pci_log_start(dev, LOG_IOVA, len);
		if (ret < 0)
			dev->link->ops->dma_unmap(dev->link, VFN_DMA_OWN, LOG_IOVA, len);
	}
	if (ret < 0)
		log_unmap(&dev->log);
	return ret;
}

/*
 * Bring logging in line with the negotiated features and the log that librte_vhost has now.
 * Called wherever one of them may have changed, and last before the guest stops.
 */
void
vfn_lm_update(struct vfn_dev *dev, uint64_t features)
{
	bool wanted = features & UINT64_C(1) << VHOST_F_LOG_ALL;
	struct vfn_log *log = &dev->log;
	uint64_t base = 0, len = 0;
	int ret;

	if (!wanted) {
		if (log->wanted) {
			DEV_LOG(INFO, dev, "dirty log off");
			vfn_trace_lm(dev->name, "off");
		}
		log_detach(dev);
		log->wanted = log->missed = false;
		return;
	}
	rte_vhost_get_log_base(dev->guest->vid, &base, &len);
	if (log->map != NULL && log->base == base && log->len == len)
		return;
	/* Bits of the old log may have come after it was read for the last time. */
	log->missed |= log->map != NULL;
	log->wanted = true;
	log_detach(dev);
	ret = base == 0 || len == 0 ? -ENOENT : log_attach(dev, base, len);
	if (ret < 0) {
		log->missed = true;
		log->refusals++;
		vfn_trace_lm(dev->name, "refused");
		DEV_LOG(ERR, dev, "dirty log: %s",
			ret == -ENOENT	       ? "the front-end wants it before it has given one" :
				ret == -EINVAL ? "the function refuses it, it is too short" :
						 strerror(-ret));
		return;
	}
	log->starts++;
	vfn_trace_lm(dev->name, "on");
	DEV_LOG(INFO, dev, "dirty log on, %" PRIu64 " bytes", len);
	if (log->missed)
		log_everything(dev);
	log->missed = false;
}

/* The guest's queues stand still. */
void
vfn_lm_stop(struct vfn_dev *dev)
{
	if (dev->log.wanted)
		vfn_lm_update(dev, UINT64_C(1) << VHOST_F_LOG_ALL);
	log_detach(dev);
	dev->log.wanted = dev->log.missed = false;
}
