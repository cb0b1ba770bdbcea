/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Shadow rings: their memory, and when there is a relay. Control, with the device's lock held.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <numa.h>
#include <numaif.h>

#include <linux/virtio_config.h>

#include <rte_common.h>
#include <rte_malloc.h>
#include <rte_memory.h>

#include "vfn_shadow.h"

/* Bus addresses from one queue's shadow ring to the next's. */
#define STEP (UINT64_C(1) << 21)

/*
 * Where no guest region is: behind the highest one. That the log reaches so far keeps it from the
 * end of all addresses. Depends on the memory only, so that queues do not get in each other's way.
 */
static uint64_t
free_addresses(const struct vfn_memory *memory)
{
	return RTE_ALIGN_CEIL(memory->end, STEP);
}

/* Does the function reach nothing but windows? Then all rings are shadowed, and buffers copied. */
bool
vfn_shadow_by_windows(const struct vfn_dev *dev)
{
	return dev->pci.link->ops->get_windows != NULL;
}

/* Is it a shadow ring on which a queue that starts now runs? */
bool
vfn_shadow_needed(const struct vfn_dev *dev)
{
	return vfn_shadow_by_windows(dev) || (dev->lm == VFN_LM_SHADOW && dev->dirty.on);
}

/* The NUMA node that a guest address is on, or SOCKET_ID_ANY. */
static int
node_of(const struct vfn_dev *dev, uint64_t gpa)
{
	void *at = vfn_memory_at(dev, gpa, 1);
	void *page = (void *)RTE_ALIGN_FLOOR((uintptr_t)at, (uintptr_t)sysconf(_SC_PAGESIZE));
	int node;

	if (at == NULL || numa_available() < 0 || move_pages(0, 1, &page, NULL, &node, 0) != 0 ||
		node < 0)
		return SOCKET_ID_ANY;
	return node;
}

/* Where EAL has no memory on the node it is taken from another. */
static void *
alloc_on(int node, size_t len, size_t align)
{
	void *p = rte_zmalloc_socket("vfn_shadow", len, align, node);

	return p != NULL ? p : rte_zmalloc_socket("vfn_shadow", len, align, SOCKET_ID_ANY);
}

/* The relay's own memory in one piece: the struct and behind it its arrays. */
static struct vfn_shadow *
shadow_alloc(const struct vfn_memory *memory, int node, uint32_t size)
{
	uint32_t segs = vfn_shadow_ring_segs(size);
	size_t chain = sizeof(struct vfn_shadow);
	size_t seg = chain + size * sizeof(struct vringh_chain);
	size_t table = seg + segs * sizeof(struct vringh_seg);
	size_t slot = table + memory->nb_regions * sizeof(struct vringh_region);
	size_t owner = slot + size * sizeof(struct vfn_shadow_slot);
	uint8_t *p = alloc_on(node, owner + 2 * size * sizeof(uint16_t), RTE_CACHE_LINE_SIZE);
	struct vfn_shadow *s = (struct vfn_shadow *)p;

	if (p == NULL)
		return NULL;
	s->chain = (struct vringh_chain *)(p + chain);
	s->seg = (struct vringh_seg *)(p + seg);
	s->nb_segs = segs;
	s->mem.table = (struct vringh_region *)(p + table);
	s->slot = (struct vfn_shadow_slot *)(p + slot);
	s->owner = (uint16_t *)(p + owner);
	s->resubmit = s->owner + size;
	s->size = size;
	s->call = s->kick = s->fd = -1;
	vfn_memory_table(memory, &s->mem);
	return s;
}

static int
guest_ring(struct vfn_dev *dev, struct vfn_shadow *s, const struct vfn_vpci_ring *ring)
{
	struct vringh_config cfg = {
		.packed = s->packed,
		.event_idx = s->event_idx,
		.indirect = s->indirect,
		.in_order = s->in_order,
		.reads_only = s->reads_only,
		.size = ring->size,
		.desc = ring->desc,
		.driver = ring->driver,
		.device = ring->device,
		.mem = &s->mem,
		.state = {.avail = ring->avail, .used = ring->used},
	};
	struct vringh_dirty_log dirty = {
		.desc = ring->desc,
		.device = s->packed ? ring->device : ring->dirty,
	};
	int error = vringh_init(&s->guest, &cfg);

	if (error < 0) {
		DEV_LOG(ERR, dev, "queue %u refused: %s", s->queue, vringh_strerror(error));
		return -EINVAL;
	}
	if (ring->inflight_len > 0 &&
		(vringh_set_inflight(&s->guest, &s->inflight, vfn_inflight_host(dev, s->queue),
			 ring->inflight_len, s->resubmit) < 0 ||
			(!dev->class->any_order && vringh_rewind(&s->guest) < 0))) {
		DEV_LOG(ERR, dev, "queue %u refused: its in-flight region does not fit the ring",
			s->queue);
		return -EINVAL;
	}
	if (!dev->dirty.on || dev->faults & VFN_FAULT_NO_DIRTY)
		return 0;
	dirty.bitmap = dev->dirty.map->host;
	dirty.len = dev->dirty.map->len;
	if (dev->faults & VFN_FAULT_NO_USED_DIRTY)
		dirty.desc = dirty.device = VRINGH_DIRTY_NOWHERE;
	if (vringh_set_dirty_log(&s->guest, &dirty) < 0) {
		DEV_LOG(ERR, dev, "queue %u refused: its rings are not within the dirty log",
			s->queue);
		return -EINVAL;
	}
	return 0;
}

/* The function's way to the shadow ring. */
static int
shadow_map(struct vfn_dev *dev, struct vfn_shadow *s)
{
	struct vfn_dma_map map = {.iova = free_addresses(&dev->memory) + s->queue * STEP,
		.len = s->dma_len,
		.host = s->dma,
		.fd = s->fd,
		.readable = true,
		.writable = true,
		.relay = true};
	int ret = vfn_vpci_map(&dev->pci, &map);

	if (ret == 0)
		s->dma_iova = map.iova;
	return ret;
}

/* The function does not reach it any more. */
static void
shadow_free(struct vfn_shadow *s)
{
	if (s == NULL)
		return;
	if (s->kick >= 0)
		close(s->kick);
	if (s->call >= 0)
		close(s->call);
	if (s->dma != NULL)
		munmap(s->dma, s->dma_len);
	if (s->fd >= 0)
		close(s->fd);
	rte_free(s);
}

/* Take it back from the function; a failed one keeps it, and *s with it. */
static int
shadow_take_back(struct vfn_dev *dev, struct vfn_shadow **s)
{
	int ret = 0;

	if (*s != NULL && (*s)->dma_iova != 0)
		ret = vfn_vpci_unmap(&dev->pci, VFN_DMA_GUEST, (*s)->dma_iova, (*s)->dma_len);
	if (ret < 0)
		return ret;
	shadow_free(*s);
	*s = NULL;
	return 0;
}

/* Memory for it, as a file. */
static int
shadow_memory(struct vfn_shadow *s, int node)
{
	int ret;

	s->fd = memfd_create("vfn-shadow", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (s->fd < 0)
		return -errno;
	/* Sealed: an endpoint, which gets it, could cut it off under the relay. */
	if (ftruncate(s->fd, s->dma_len) < 0 ||
		fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	s->dma = mmap(NULL, s->dma_len, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (s->dma == MAP_FAILED) {
		s->dma = NULL;
		return -errno;
	}
	if (node != SOCKET_ID_ANY)
		numa_tonode_memory(s->dma, s->dma_len, node);
	/* Without room it is refused here, and is no bus error later. */
	ret = posix_fallocate(s->fd, 0, s->dma_len);
	return -ret;
}

/*
 * Get all that a queue's shadow ring needs and that there may be too little of, so that a queue
 * which is stopped for it does start again. 0, also if there is some already, or a negative errno.
 */
int
vfn_shadow_prepare(
	struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring, uint64_t features)
{
	bool packed = features & UINT64_C(1) << VIRTIO_F_RING_PACKED;
	struct vfn_shadow *s = dev->shadow[queue] != NULL ? dev->shadow[queue] : dev->spare[queue];
	int node = node_of(dev, ring->desc), ret;
	uint64_t offset[4];

	if (s != NULL && s->size == ring->size && s->packed == packed)
		return 0;
	ret = shadow_take_back(dev, &dev->spare[queue]);
	if (ret < 0)
		return ret;
	s = shadow_alloc(&dev->memory, node, ring->size);
	if (s == NULL)
		return -ENOMEM;
	s->queue = queue;
	s->packed = packed;
	if (!vfn_shadow_by_windows(dev)) {
		s->dma_len = RTE_ALIGN_CEIL(vfn_shadow_ring_layout(packed, s->size, offset),
			(uint64_t)sysconf(_SC_PAGESIZE));
		ret = shadow_memory(s, node);
		if (ret == 0)
			ret = shadow_map(dev, s);
	}
	if (ret == 0 && !vfn_vpci_does_jobs(&dev->pci)) {
		s->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		s->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ret = s->kick < 0 || s->call < 0 ? -EMFILE : 0;
	}
	dev->spare[queue] = s;
	/* If that fails it stays there, with a failed function. */
	if (ret < 0 && shadow_take_back(dev, &dev->spare[queue]) < 0)
		return -EIO;
	return ret;
}

/* What is held ready is not needed. */
void
vfn_shadow_unprepare(struct vfn_dev *dev)
{
	uint16_t q;

	/* What a failed function keeps is freed when it is reset. */
	for (q = 0; q < dev->pci.nb_queues; q++)
		if (shadow_take_back(dev, &dev->spare[q]) < 0)
			return;
}

/* Its memory, which was mapped. */
static int
own_ring(struct vfn_shadow *s)
{
	uint64_t offset[4];

	vfn_shadow_ring_layout(s->packed, s->size, offset);
	memset(s->dma, 0, s->dma_len);
	s->ring.desc = s->dma_iova + offset[0];
	s->ring.driver = s->dma_iova + offset[1];
	s->ring.device = s->dma_iova + offset[2];
	s->table = (uint8_t *)s->dma + offset[3];
	s->table_iova = s->dma_iova + offset[3];
	if (s->packed) {
		s->packed_ring.desc = s->packed_ring.used = s->dma;
		s->packed_ring.driver = RTE_PTR_ADD(s->dma, offset[1]);
		s->packed_ring.device = RTE_PTR_ADD(s->dma, offset[2]);
	} else {
		s->split.desc = s->dma;
		s->split.avail = RTE_PTR_ADD(s->dma, offset[1]);
		s->split.used = RTE_PTR_ADD(s->dma, offset[2]);
	}
	return 0;
}

/* A ring that is empty, at its start. */
static int
ring_begin(struct vfn_dev *dev, struct vfn_shadow *s)
{
	int ret;

	memset(s->slot, 0, s->size * sizeof(s->slot[0]));
	s->ring = (struct vfn_vpci_ring){.size = s->size, .kickfd = s->kick, .callfd = s->call};
	ret = vfn_shadow_by_windows(dev) ? vfn_window_to_ring(dev, s) : own_ring(s);
	s->ring.dirty = s->ring.device;
	s->room = s->size;
	s->head = s->tail = s->count = s->next_seg = s->unkicked = 0;
	s->next_desc = s->avail = s->used = 0;
	s->armed = s->full = s->broken_told = s->wrong_told = s->unsaid = false;
	if (s->packed) {
		s->ring.avail = s->ring.used = VRINGH_PACKED_START.avail;
		s->avail_wrap = s->used_wrap = true;
	}
	return ret;
}

static int
host_start(struct vfn_dev *dev, struct vfn_shadow *s)
{
	int ret;

	if (!vfn_vpci_does_jobs(&dev->pci))
		return 0;
	s->ring.kickfd = s->guest_kick;
	ret = vfn_vpci_set_job(&dev->pci, s->queue, &s->job);
	s->has_job = ret == 0;
	return ret;
}

/*
 * Let the function's queue run on a ring of ours, and begin to serve the guest's from the
 * position in ring. Nothing is relayed by a thread before vfn_shadow_resume().
 */
int
vfn_shadow_start(
	struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring, uint64_t features)
{
	struct vfn_shadow *s;
	int ret;

	vfn_shadow_pause(dev);
	ret = vfn_shadow_prepare(dev, queue, ring, features);
	if (ret < 0) {
		DEV_LOG(ERR, dev, "queue %u: no shadow ring: %s; it stays off", queue,
			strerror(-ret));
		return ret;
	}
	s = dev->shadow[queue] = dev->spare[queue];
	dev->spare[queue] = NULL;
	s->job = (struct vfn_job){.run = vfn_shadow_ring_run, .arm = vfn_shadow_ring_arm};
	s->name = dev->name;
	s->event_idx = features & UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
	s->indirect = features & UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
	s->in_order = features & UINT64_C(1) << VIRTIO_F_IN_ORDER;
	s->reads_only = dev->class->in_pairs && queue % 2 == 1;
	s->call_blocked = s->call_owed = s->kick_blocked = false;
	s->is_ctrl = vfn_ctrl_is(dev, queue) && vfn_shadow_by_windows(dev);
	s->calls_held = &dev->shadow_calls_held;
	s->guest_call = ring->callfd;
	s->guest_kick = ring->kickfd;
	s->guest_ring = *ring;
	ret = guest_ring(dev, s, ring);
	if (ret == 0)
		ret = ring_begin(dev, s);
	if (ret == 0) {
		vfn_shadow_ring_disarm(s);
		ret = host_start(dev, s);
	}
	if (ret == 0)
		ret = vfn_vpci_queue_start(&dev->pci, queue, &s->ring);
	/* Where that fails it stays, with a failed function. */
	if (ret < 0 && vfn_shadow_end_job(dev, queue) == 0 && vfn_shadow_free(dev, queue) < 0)
		return -EIO;
	if (ret < 0)
		return ret;
	s->live = true;
	DEV_LOG(DEBUG, dev, "queue %u: shadow ring at 0x%" PRIx64 ", %" PRIu64 " bytes", queue,
		s->ring.desc, s->dma_len);
	return 0;
}

/* What the guest's ring counts, and what only the relay refuses. Any thread. */
static uint64_t
error_count(const struct vfn_shadow *s, enum vringh_error error)
{
	uint64_t n = vringh_error_count(&s->guest, error);

	return error == VRINGH_E_LOOP ? n + __atomic_load_n(&s->nb_too_long, __ATOMIC_RELAXED) : n;
}

/*
 * The function's queue stands still: end the relay, and tell where the guest's ring stands; false
 * if the queue has no relay, or one that does not end. The memory stays the function's until its
 * queue is reset.
 */
bool
vfn_shadow_leave(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring)
{
	struct vfn_shadow *s = dev->shadow[queue];
	struct vringh_state state;
	unsigned int e;

	if (s == NULL || !s->live || vfn_shadow_end_job(dev, queue) < 0)
		return false;
	vfn_shadow_pause(dev);
	vfn_shadow_ring_finish(s);
	s->live = false;
	state = vringh_get_state(&s->guest);
	ring->avail = state.avail;
	ring->used = state.used;
	ring->dirty = s->guest_ring.dirty;
	s->guest_ring.avail = state.avail;
	s->guest_ring.used = state.used;
	/* What was counted here counts on. */
	dev->stats_base[queue][VFN_STAT_CALLS_BLOCKED] -= s->call_blocked;
	for (e = VRINGH_E_AVAIL_IDX; e <= VRINGH_E_SEGS; e++)
		dev->stats_base[queue][VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX] -=
			error_count(s, e);
	return true;
}

/* Chains and rings that the relay refuses, beside those that the function does. */
void
vfn_shadow_stats(const struct vfn_dev *dev, uint16_t queue, uint64_t value[VFN_STATS_MAX])
{
	const struct vfn_shadow *s = dev->shadow[queue];
	unsigned int e;

	if (s == NULL || !s->live)
		return;
	value[VFN_STAT_CALLS_BLOCKED] += __atomic_load_n(&s->call_blocked, __ATOMIC_RELAXED);
	for (e = VRINGH_E_AVAIL_IDX; e <= VRINGH_E_SEGS; e++)
		value[VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX] += error_count(s, e);
}

/* Is any relay at work? What is in flight has no exact position then. */
bool
vfn_shadow_any_live(const struct vfn_dev *dev)
{
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues; q++)
		if (dev->shadow[q] != NULL && dev->shadow[q]->live)
			return true;
	return false;
}

/*
 * The guest's ring of a queue whose relay stands still, where it stands without what is under way;
 * NULL: it has no relay.
 */
const struct vfn_vpci_ring *
vfn_shadow_guest_ring(struct vfn_dev *dev, uint16_t queue)
{
	struct vfn_shadow *s = queue < dev->pci.nb_queues ? dev->shadow[queue] : NULL;

	if (s == NULL)
		return NULL;
	/* Chains come back in the order in which they were fetched. */
	if (s->live)
		s->guest_ring.avail = s->guest_ring.used = vringh_get_state(&s->guest).used;
	return &s->guest_ring;
}

/*
 * The function has forgotten the ring, but not the memory: that stays for the queue's next one, and
 * goes with vfn_shadow_unprepare().
 */
void
vfn_shadow_spare(struct vfn_dev *dev, uint16_t queue)
{
	if (dev->shadow[queue] == NULL)
		return;
	vfn_shadow_pause(dev);
	dev->spare[queue] = dev->shadow[queue];
	dev->shadow[queue] = NULL;
}

/* The function has forgotten the ring, but not the memory. */
int
vfn_shadow_free(struct vfn_dev *dev, uint16_t queue)
{
	int ret;

	if (dev->shadow[queue] != NULL)
		vfn_shadow_pause(dev);
	ret = shadow_take_back(dev, &dev->shadow[queue]);
	return ret < 0 ? ret : shadow_take_back(dev, &dev->spare[queue]);
}

/* Nobody relays for the queue on success. */
int
vfn_shadow_end_job(struct vfn_dev *dev, uint16_t queue)
{
	struct vfn_shadow *s = dev->shadow[queue];
	int ret = 0;

	if (s != NULL && s->has_job)
		ret = vfn_vpci_set_job(&dev->pci, queue, NULL);
	if (s != NULL && ret == 0)
		s->has_job = false;
	return ret;
}

/* The function reaches nothing of the guest's any more. */
void
vfn_shadow_drop(struct vfn_dev *dev, uint16_t queue)
{
	if (dev->shadow[queue] != NULL)
		vfn_shadow_pause(dev);
	shadow_free(dev->shadow[queue]);
	shadow_free(dev->spare[queue]);
	dev->shadow[queue] = dev->spare[queue] = NULL;
}
