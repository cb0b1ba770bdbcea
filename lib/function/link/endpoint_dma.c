/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Memory of an endpoint's client: mapped from the descriptors that it sends, and logged where it
 * wants to know which pages are written. On the server's thread.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_common.h>

#include "endpoint.h"

/*
 * What all endpoints of the process may map together: address space, of 47 bits, and mappings,
 * 65,530 as the kernel has it (vm.max_map_count).
 */
#define SPACE_MAX (UINT64_C(1) << 46)
#define MAPS_MAX  60000u

static pthread_mutex_t taken_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t taken_space;
static uint32_t taken_maps;

/* Whoever takes half of what the others leave at most never takes the last of it. */
static bool
take(struct vfn_endpoint *ep, uint64_t size)
{
	bool fits;

	pthread_mutex_lock(&taken_lock);
	fits = size <= SPACE_MAX &&
		ep->map_bytes + size <= (SPACE_MAX - (taken_space - ep->map_bytes)) / 2 &&
		ep->nb_maps + 1 <= (MAPS_MAX - (taken_maps - ep->nb_maps)) / 2;
	if (fits) {
		taken_space += size;
		taken_maps++;
		__atomic_fetch_add(&ep->map_bytes, size, __ATOMIC_RELAXED);
		__atomic_fetch_add(&ep->nb_maps, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&taken_lock);
	return fits;
}

static void
give_back(struct vfn_endpoint *ep, uint64_t size)
{
	pthread_mutex_lock(&taken_lock);
	taken_space -= size;
	taken_maps--;
	__atomic_fetch_sub(&ep->map_bytes, size, __ATOMIC_RELAXED);
	__atomic_fetch_sub(&ep->nb_maps, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&taken_lock);
}

/* ---- maps ---- */

static enum vfn_dma_space
space_of(uint64_t address)
{
	return (address & VFN_ENDPOINT_OWN) != 0 ? VFN_DMA_OWN : VFN_DMA_GUEST;
}

static int
map_new(struct vfn_endpoint *ep, const struct vfu_dma *dma, struct vfn_map **map)
{
	bool writable = dma->flags & VFIO_DMA_MAP_FLAG_WRITE;
	struct vfn_dma_map m = {
		.space = space_of(dma->address),
		.iova = dma->address & ~VFN_ENDPOINT_OWN,
		.len = dma->size,
		.fd = -1,
		.readable = dma->flags & VFIO_DMA_MAP_FLAG_READ,
		.writable = writable,
	};
	int ret;

	*map = writable ? vfn_map_fd(dma->fd, dma->offset, dma->size) :
			  vfn_map_fd_read(dma->fd, dma->offset, dma->size);
	if (*map == NULL)
		return -errno;
	/* A client may have as many maps as this process descriptors. */
	vfn_map_drop_fd(*map);
	m.host = (*map)->host;
	ret = ep->link->ops->dma_map(ep->link, &m);
	if (ret < 0)
		vfn_map_put(*map);
	return ret;
}

int
ep_dma_map(void *device, const struct vfu_dma *dma)
{
	struct vfn_endpoint *ep = device;
	struct vfn_map *map;
	int ret;

	ep_change(ep);
	if (space_of(dma->address) != space_of(dma->address + (dma->size - 1)))
		return -EINVAL;
	if (dma->fd < 0) {
		/* Descriptors that name it are refused, and counted, like all that is not mapped. */
		__atomic_fetch_add(&ep->unreachable, 1, __ATOMIC_RELAXED);
		return 0;
	}
	if (!take(ep, dma->size))
		return -ENOSPC;
	ret = map_new(ep, dma, &map);
	if (ret < 0) {
		give_back(ep, dma->size);
		return ret;
	}
	ep->map[ep->nb_maps - 1] =
		(struct ep_map){.address = dma->address, .size = dma->size, .map = map};
	return 0;
}

int
ep_dma_unmap(void *device, const struct vfu_dma *dma)
{
	struct vfn_endpoint *ep = device;
	unsigned int i;
	int ret;

	ep_change(ep);
	for (i = 0; i < ep->nb_maps && ep->map[i].address != dma->address; i++)
		;
	if (i == ep->nb_maps) {
		__atomic_fetch_sub(&ep->unreachable, 1, __ATOMIC_RELAXED);
		return 0;
	}
	ret = ep->link->ops->dma_unmap(
		ep->link, space_of(dma->address), dma->address & ~VFN_ENDPOINT_OWN, dma->size);
	if (ret < 0)
		return ret;
	vfn_map_put(ep->map[i].map);
	ep->map[i] = ep->map[ep->nb_maps - 1];
	give_back(ep, dma->size);
	return 0;
}

/* The function is reset. What it does not let go of stays mapped, here too. */
void
ep_dma_detach(struct vfn_endpoint *ep)
{
	const struct vfn_link_ops *ops = ep->link->ops;
	int guest = ops->dma_unmap(ep->link, VFN_DMA_GUEST, 0, 0);
	int own = ops->dma_unmap(ep->link, VFN_DMA_OWN, 0, 0);

	if (guest < 0 || own < 0)
		EP_LOG(ERR, ep, "the function does not let go of its client's memory");
	while (ep->nb_maps > 0) {
		struct ep_map *m = &ep->map[ep->nb_maps - 1];

		if ((space_of(m->address) == VFN_DMA_OWN ? own : guest) == 0)
			vfn_map_put(m->map);
		give_back(ep, m->size);
	}
	__atomic_store_n(&ep->unreachable, 0, __ATOMIC_RELAXED);
	if (own == 0)
		vfn_map_put(ep->log);
	ep->log = NULL;
	__atomic_store_n(&ep->logging, false, __ATOMIC_RELAXED);
}

/* ---- dirty pages ("VFIO_DEVICE_FEATURE_DMA_LOGGING_*") ---- */

/* Where the log is in VFN_DMA_OWN: no map of the client's reaches there. */
#define LOG_AT	 VFN_ENDPOINT_OWN
#define LOG_PAGE 4096u
/* Addresses that it has bits for, at least and at most: it takes memory where bits are set. */
#define LOG_MIN	 (UINT64_C(1) << 40)
#define LOG_MAX	 (UINT64_C(1) << 47)

/* Bytes of a log that reaches to the end of all that can be written; 0: too many. */
static uint64_t
log_length(const struct vfn_endpoint *ep, const struct vfu_log_range *ranges, unsigned int nb_ranges)
{
	uint64_t last = LOG_MIN - 1;
	unsigned int i;

	for (i = 0; i < ep->nb_maps; i++)
		if (space_of(ep->map[i].address) == VFN_DMA_GUEST)
			last = RTE_MAX(last, ep->map[i].address + (ep->map[i].size - 1));
	for (i = 0; i < nb_ranges; i++)
		last = RTE_MAX(last, ranges[i].iova + (ranges[i].length - 1));
	return last < LOG_MAX ? (last / LOG_PAGE + 64) / 64 * 8 : 0;
}

static struct vfn_map *
log_new(uint64_t len)
{
	int fd = memfd_create("vfn-dirty", MFD_CLOEXEC);
	struct vfn_map *map = NULL;

	if (fd < 0)
		return NULL;
	if (ftruncate(fd, len) == 0)
		map = vfn_map_fd(fd, 0, len);
	close(fd);
	if (map != NULL)
		vfn_map_drop_fd(map);
	return map;
}

static int
log_switch_on(struct vfn_endpoint *ep)
{
	EP_SET(ep, VENDOR, dirty_lo, (uint32_t)LOG_AT);
	EP_SET(ep, VENDOR, dirty_hi, LOG_AT >> 32);
	EP_SET(ep, VENDOR, dirty_len_lo, (uint32_t)ep->log_len);
	EP_SET(ep, VENDOR, dirty_len_hi, ep->log_len >> 32);
	EP_SET(ep, VENDOR, dirty_control, 1);
	return EP_GET(ep, VENDOR, dirty_control) == 1 ? 0 : -EIO;
}

int
ep_log_start(void *device, uint64_t *page_size, const struct vfu_log_range *ranges,
	unsigned int nb_ranges)
{
	struct vfn_endpoint *ep = device;
	struct vfn_dma_map m = {
		.space = VFN_DMA_OWN, .iova = LOG_AT, .fd = -1, .readable = true, .writable = true};
	int ret;

	ep_change(ep);
	/* The client has a log of its own, by the registers. */
	if (ep->log != NULL || EP_GET(ep, VENDOR, dirty_control) != 0)
		return -EBUSY;
	ep->log_len = log_length(ep, ranges, nb_ranges);
	if (ep->log_len == 0)
		return -E2BIG;
	ep->log = log_new(ep->log_len);
	if (ep->log == NULL)
		return -ENOMEM;
	m.host = ep->log->host;
	m.len = ep->log_len;
	ret = ep->link->ops->dma_map(ep->link, &m);
	if (ret == 0) {
		ret = log_switch_on(ep);
		if (ret < 0)
			ep->link->ops->dma_unmap(ep->link, VFN_DMA_OWN, LOG_AT, ep->log_len);
	}
	if (ret < 0) {
		vfn_map_put(ep->log);
		ep->log = NULL;
		return ret;
	}
	*page_size = LOG_PAGE;
	__atomic_store_n(&ep->logging, true, __ATOMIC_RELAXED);
	return 0;
}

int
ep_log_stop(void *device)
{
	struct vfn_endpoint *ep = device;
	int ret;

	ep_change(ep);
	if (ep->log == NULL)
		return -EINVAL;
	EP_SET(ep, VENDOR, dirty_control, 0);
	ret = EP_WAIT(ep, VENDOR, dirty_control, 0);
	if (ret == 0)
		ret = ep->link->ops->dma_unmap(ep->link, VFN_DMA_OWN, LOG_AT, ep->log_len);
	if (ret < 0)
		return ret;
	vfn_map_put(ep->log);
	ep->log = NULL;
	__atomic_store_n(&ep->logging, false, __ATOMIC_RELAXED);
	return 0;
}

/* Nothing was written since: no queue was running. */
void
ep_log_keep(struct vfn_endpoint *ep)
{
	if (EP_GET(ep, VENDOR, dirty_control) != 1 && log_switch_on(ep) < 0)
		EP_LOG(ERR, ep, "the function does not log dirty pages any more");
}

int
ep_log_report(void *device, uint64_t iova, uint64_t length, uint64_t page_size, uint64_t *bitmap)
{
	struct vfn_endpoint *ep = device;
	uint64_t page = iova / LOG_PAGE, end = (iova + (length - 1)) / LOG_PAGE + 1, first = page;
	const uint64_t nb_pages = ep->log_len * 8;

	ep_count(&ep->accesses);
	if (ep->log == NULL || page_size < LOG_PAGE || iova % page_size != 0)
		return -EINVAL;
	end = RTE_MIN(end, nb_pages);
	/* Word by word of the log: each is moved at once, so that no bit is lost on the way. */
	while (page < end) {
		uint64_t *word = (uint64_t *)(void *)ep->log->host + page / 64, bits, mask;
		uint64_t n = RTE_MIN(64 - page % 64, end - page);

		mask = (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << page % 64;
		bits = __atomic_load_n(word, __ATOMIC_RELAXED) & mask;
		if (bits != 0)
			bits &= __atomic_fetch_and(word, ~mask, __ATOMIC_ACQ_REL);
		for (; bits != 0; bits &= bits - 1) {
			uint64_t at = page - page % 64 + __builtin_ctzll(bits) - first;

			at = at * LOG_PAGE / page_size;
			bitmap[at / 64] |= UINT64_C(1) << at % 64;
		}
		page += n;
	}
	return 0;
}
