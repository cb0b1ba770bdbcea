/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Shadow rings: their memory, and who runs the relays. Control, with the device's lock held, but
 * for the thread. Where the link does a driver's jobs there is no thread: the poller of the
 * function's queue relays between its own rounds, and so never waits for a core that it spins on.
 *
 * The thread works on what dev->shadow has. That changes only while there is no thread: it is
 * stopped by a request that it answers by ending.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
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

/* Where kicks can't be waited for guests are looked at this often. */
#define POLL_MS 1

static int
by_iova(const void *a, const void *b)
{
	const struct vringh_region *x = a, *y = b;

	return x->iova < y->iova ? -1 : x->iova > y->iova;
}

/* The guest's memory as the relay sees it. */
static void
mem_fill(struct vringh_mem *to, const struct rte_vhost_memory *mem)
{
	uint32_t i;

	to->kind = VRINGH_MEM_REGION;
	to->nb_regions = mem->nregions;
	for (i = 0; i < mem->nregions; i++)
		to->table[i] = (struct vringh_region){
			.iova = mem->regions[i].guest_phys_addr,
			.len = mem->regions[i].size,
			.host = (uint8_t *)(uintptr_t)mem->regions[i].host_user_addr,
			.perm = VRINGH_PERM_RW,
		};
	qsort(to->table, to->nb_regions, sizeof(to->table[0]), by_iova);
}

/*
 * Where no guest region is: behind the highest one. That the log reaches so far keeps it from the
 * end of all addresses. Depends on the memory only, so that queues do not get in each other's way.
 */
static uint64_t
free_addresses(const struct vringh_mem *mem)
{
	const struct vringh_region *last = &mem->table[mem->nb_regions - 1];

	return RTE_ALIGN_CEIL(last->iova + last->len, STEP);
}

/* The NUMA node that a guest address is on, or SOCKET_ID_ANY. */
static int
node_of(const struct rte_vhost_memory *mem, uint64_t gpa)
{
	int node = SOCKET_ID_ANY;
	uint32_t i;

	for (i = 0; i < mem->nregions; i++) {
		const struct rte_vhost_mem_region *r = &mem->regions[i];
		void *page = (void *)RTE_ALIGN_FLOOR(
			(uintptr_t)(gpa - r->guest_phys_addr + r->host_user_addr),
			(uintptr_t)sysconf(_SC_PAGESIZE));

		if (gpa - r->guest_phys_addr < r->size && numa_available() >= 0 &&
			move_pages(0, 1, &page, NULL, &node, 0) == 0 && node >= 0)
			return node;
	}
	return SOCKET_ID_ANY;
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
shadow_alloc(const struct rte_vhost_memory *mem, int node, uint32_t size)
{
	uint32_t segs = vfn_shadow_ring_segs(size);
	size_t chain = sizeof(struct vfn_shadow);
	size_t seg = chain + size * sizeof(struct vringh_chain);
	size_t table = seg + segs * sizeof(struct vringh_seg);
	size_t slot = table + mem->nregions * sizeof(struct vringh_region);
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
	s->size = s->room = size;
	s->guest_call = s->guest_kick = s->call = s->kick = -1;
	mem_fill(&s->mem, mem);
	return s;
}

static int
guest_ring(struct vfn_dev *dev, struct vfn_shadow *s, const struct vfn_ring *ring)
{
	struct vringh_config cfg = {
		.packed = s->packed,
		.event_idx = s->event_idx,
		.indirect = s->indirect,
		.in_order = s->in_order,
		.reads_only = s->queue % 2 == 1,
		.size = ring->size,
		.desc = ring->desc,
		.driver = ring->driver,
		.device = ring->device,
		.mem = &s->mem,
		.state = {.avail = ring->avail, .used = ring->used},
	};
	struct vringh_log log = {
		.bitmap = dev->log.bitmap,
		.len = dev->log.len,
		.desc = ring->desc,
		.device = s->packed ? ring->device : ring->log,
	};
	enum vringh_error error = vringh_init(&s->guest, &cfg);

	if (error != VRINGH_OK) {
		DEV_LOG(ERR, dev, "queue %u refused: %s", s->queue, vringh_strerror(error));
		return -EINVAL;
	}
	if (ring->inflight_len > 0 &&
		(vringh_set_inflight(&s->guest, &s->inflight, vfn_inflight_host(dev, s->queue),
			 ring->inflight_len, s->resubmit) < 0 ||
			vringh_rewind(&s->guest) < 0)) {
		DEV_LOG(ERR, dev, "queue %u refused: its in-flight region does not fit the ring",
			s->queue);
		return -EINVAL;
	}
	if (dev->faults & VFN_FAULT_NO_LOG)
		return 0;
	if (vringh_set_log(&s->guest, &log) < 0) {
		DEV_LOG(ERR, dev, "queue %u refused: its rings are not within the dirty log",
			s->queue);
		return -EINVAL;
	}
	/* No log reaches that far. */
	if (dev->faults & VFN_FAULT_NO_USED_LOG)
		s->guest.log.desc = s->guest.log.device = UINT64_C(1) << 63;
	return 0;
}

/* Memory for the shadow ring, and the function's way to it. */
static int
shadow_ring(struct vfn_dev *dev, struct vfn_shadow *s, int node)
{
	uint64_t at = free_addresses(&s->mem), offset[4];
	struct vfn_dma_map map = {.fd = -1, .readable = true, .writable = true};
	long page = sysconf(_SC_PAGESIZE);
	int ret;

	map.iova = at + s->queue * STEP;
	map.len =
		RTE_ALIGN_CEIL(vfn_shadow_ring_layout(s->packed, s->size, offset), (uint64_t)page);
	map.host = alloc_on(node, map.len, page);
	if (map.host == NULL)
		return -ENOMEM;
	ret = dev->link->ops->dma_map(dev->link, &map);
	if (ret < 0) {
		rte_free(map.host);
		return ret;
	}
	s->dma = map.host;
	s->ring = (struct vfn_ring){
		.desc = map.iova + offset[0],
		.driver = map.iova + offset[1],
		.device = map.iova + offset[2],
		.log = map.iova + offset[2],
		.size = s->size,
	};
	s->dma_len = map.len;
	s->table = (uint8_t *)map.host + offset[3];
	s->table_iova = map.iova + offset[3];
	if (s->packed) {
		s->ring.avail = s->ring.used = VRINGH_PACKED_START.avail;
		s->avail_wrap = s->used_wrap = true;
		s->packed_ring.desc = map.host;
		s->packed_ring.driver = RTE_PTR_ADD(map.host, offset[1]);
		s->packed_ring.device = RTE_PTR_ADD(map.host, offset[2]);
	} else {
		s->split.desc = map.host;
		s->split.avail = RTE_PTR_ADD(map.host, offset[1]);
		s->split.used = RTE_PTR_ADD(map.host, offset[2]);
	}
	return 0;
}

static int
host_start(struct vfn_dev *dev, struct vfn_shadow *s)
{
	if (dev->link->ops->set_job != NULL) {
		s->ring.kickfd = s->guest_kick;
		s->ring.callfd = -1;
		return dev->link->ops->set_job(dev->link, s->queue, &s->job);
	}
	s->kick = s->ring.kickfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->call = s->ring.callfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->kick < 0 || s->call < 0 ? -errno : 0;
}

/*
 * Let the function's queue run on a ring of ours, and begin to serve the guest's from the
 * position in ring. Nothing is relayed by a thread before vfn_shadow_resume().
 */
int
vfn_shadow_start(
	struct vfn_dev *dev, uint16_t queue, const struct vfn_ring *ring, uint64_t features)
{
	struct rte_vhost_memory *mem = NULL;
	struct vfn_shadow *s;
	int node, ret;

	if (rte_vhost_get_mem_table(dev->guest->vid, &mem) < 0)
		return -EINVAL;
	vfn_shadow_pause(dev);
	node = node_of(mem, ring->desc);
	s = shadow_alloc(mem, node, ring->size);
	free(mem);
	if (s == NULL) {
		DEV_LOG(ERR, dev, "queue %u: no memory for its shadow ring; it stays off", queue);
		return -ENOMEM;
	}
	s->job = (struct vfn_job){.run = vfn_shadow_ring_run, .arm = vfn_shadow_ring_arm};
	s->name = dev->name;
	s->queue = queue;
	s->packed = features & UINT64_C(1) << VIRTIO_F_RING_PACKED;
	s->event_idx = features & UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
	s->indirect = features & UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
	s->in_order = features & UINT64_C(1) << VIRTIO_F_IN_ORDER;
	s->guest_call = ring->callfd;
	s->guest_kick = ring->kickfd;
	s->guest_ring = *ring;
	dev->shadow[queue] = s;
	ret = guest_ring(dev, s, ring);
	if (ret == 0) {
		ret = shadow_ring(dev, s, node);
		if (ret == 0) {
			vfn_shadow_ring_disarm(s);
			ret = host_start(dev, s);
		}
		if (ret < 0)
			DEV_LOG(ERR, dev, "queue %u: no shadow ring: %s; it stays off", queue,
				strerror(-ret));
	}
	if (ret == 0)
		ret = vfn_pci_queue_start(dev, queue, &s->ring);
	if (ret < 0) {
		if (dev->link->ops->set_job != NULL)
			dev->link->ops->set_job(dev->link, queue, NULL);
		vfn_shadow_free(dev, queue, true);
		return ret;
	}
	s->live = true;
	DEV_LOG(DEBUG, dev, "queue %u: shadow ring at 0x%" PRIx64 ", %" PRIu64 " bytes", queue,
		s->ring.desc, s->dma_len);
	return 0;
}

/*
 * The function's queue stands still: end the relay, and tell where the guest's ring stands. The
 * memory stays the function's until its queue is reset.
 */
void
vfn_shadow_leave(struct vfn_dev *dev, uint16_t queue, struct vfn_ring *ring)
{
	struct vfn_shadow *s = dev->shadow[queue];
	struct vringh_state state;
	unsigned int e;

	if (s == NULL || !s->live)
		return;
	if (dev->link->ops->set_job != NULL)
		dev->link->ops->set_job(dev->link, queue, NULL);
	vfn_shadow_pause(dev);
	vfn_shadow_ring_finish(s);
	s->live = false;
	state = vringh_get_state(&s->guest);
	ring->avail = state.avail;
	ring->used = state.used;
	ring->log = s->guest_ring.log;
	s->guest_ring.avail = state.avail;
	s->guest_ring.used = state.used;
	/* What was counted here counts on. */
	for (e = VRINGH_E_AVAIL_IDX; e <= VRINGH_E_SEGS; e++)
		dev->stats_base[queue][VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX] -=
			s->guest.nb_errors[e];
}

/* Chains and rings that the relay refuses, beside those that the function does. */
void
vfn_shadow_stats(const struct vfn_dev *dev, uint16_t queue, uint64_t value[VFN_STAT_MAX])
{
	const struct vfn_shadow *s = dev->shadow[queue];
	unsigned int e;

	if (s == NULL || !s->live)
		return;
	for (e = VRINGH_E_AVAIL_IDX; e <= VRINGH_E_SEGS; e++)
		value[VFN_STAT_ERRORS_AVAIL_IDX + e - VRINGH_E_AVAIL_IDX] +=
			__atomic_load_n(&s->guest.nb_errors[e], __ATOMIC_RELAXED);
}

/* Is any relay at work? What is in flight has no exact position then. */
bool
vfn_shadow_any_live(const struct vfn_dev *dev)
{
	uint16_t q;

	for (q = 0; q < dev->nb_queues; q++)
		if (dev->shadow[q] != NULL && dev->shadow[q]->live)
			return true;
	return false;
}

/* The guest's ring of a queue whose relay was ended, NULL if it has none. */
const struct vfn_ring *
vfn_shadow_guest_ring(const struct vfn_dev *dev, uint16_t queue)
{
	return dev->shadow[queue] != NULL ? &dev->shadow[queue]->guest_ring : NULL;
}

/* The function has forgotten the ring; mapped: but not the memory. */
void
vfn_shadow_free(struct vfn_dev *dev, uint16_t queue, bool mapped)
{
	struct vfn_shadow *s = dev->shadow[queue];

	if (s == NULL)
		return;
	vfn_shadow_pause(dev);
	if (s->dma != NULL && mapped &&
		dev->link->ops->dma_unmap(dev->link, VFN_DMA_GUEST, s->ring.desc, s->dma_len) < 0)
		DEV_LOG(ERR, dev, "queue %u: the function keeps the shadow ring", queue);
	if (s->kick >= 0)
		close(s->kick);
	if (s->call >= 0)
		close(s->call);
	rte_free(s->dma);
	rte_free(s);
	dev->shadow[queue] = NULL;
}

/* ---- the thread ---- */

static void *
shadow_thread(void *arg)
{
	struct vfn_dev *dev = arg;
	struct vfn_shadow_thread *t = &dev->shadow_thread;
	struct epoll_event event[8];

	while (!__atomic_load_n(&t->quit, __ATOMIC_ACQUIRE)) {
		unsigned int moved = 0, q;
		bool pending = false;

		for (q = 0; q < dev->nb_queues; q++)
			if (dev->shadow[q] != NULL && dev->shadow[q]->live)
				moved += vfn_shadow_ring_run(&dev->shadow[q]->job);
		if (moved > 0)
			continue;
		for (q = 0; q < dev->nb_queues; q++)
			if (dev->shadow[q] != NULL && dev->shadow[q]->live)
				pending |= vfn_shadow_ring_arm(&dev->shadow[q]->job);
		/* Edges: one that came since they were armed is still reported. */
		epoll_wait(t->epoll_fd, event, RTE_DIM(event),
			pending		     ? 0 :
				t->must_poll ? POLL_MS :
					       -1);
	}
	return NULL;
}

static bool
wait_for(struct vfn_shadow_thread *t, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	return fd >= 0 && epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Relays may be added and removed. */
void
vfn_shadow_pause(struct vfn_dev *dev)
{
	struct vfn_shadow_thread *t = &dev->shadow_thread;

	if (!t->runs)
		return;
	__atomic_store_n(&t->quit, true, __ATOMIC_RELEASE);
	eventfd_write(t->wake_fd, 1);
	pthread_join(t->id, NULL);
	close(t->epoll_fd);
	close(t->wake_fd);
	*t = (struct vfn_shadow_thread){0};
}

void
vfn_shadow_resume(struct vfn_dev *dev)
{
	struct vfn_shadow_thread *t = &dev->shadow_thread;
	unsigned int q, n = 0;
	sigset_t all, old;
	int ret;

	if (t->runs || dev->link->ops->set_job != NULL)
		return;
	for (q = 0; q < dev->nb_queues; q++)
		n += dev->shadow[q] != NULL && dev->shadow[q]->live;
	if (n == 0)
		return;
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* What can't be waited for is looked at now and then: a doorbell in memory raises nothing.
	 */
	t->must_poll = !wait_for(t, t->wake_fd) || dev->doorbells.fd >= 0;
	for (q = 0; q < dev->nb_queues; q++) {
		struct vfn_shadow *s = dev->shadow[q];

		if (s != NULL && s->live && (!wait_for(t, s->guest_kick) || !wait_for(t, s->call)))
			t->must_poll = true;
	}
	/* It never handles a signal. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&t->id, NULL, shadow_thread, dev);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret != 0) {
		DEV_LOG(ERR, dev, "no thread for the shadow rings, they stand still: %s",
			strerror(ret));
		close(t->epoll_fd);
		close(t->wake_fd);
		return;
	}
	pthread_setname_np(t->id, "vfn-shadow");
	t->runs = true;
}
