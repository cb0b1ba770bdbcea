/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Queues: their rings as the kernel tells of them, their positions, kicks and interrupts. With the
 * owner's lock held, but for vduse_inject().
 */

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "vduse_private.h"

static bool
is_packed(const struct vfn_vduse *v)
{
	return v->features & FEATURE(VIRTIO_F_RING_PACKED);
}

/* False if the kernel does not tell. */
bool
vduse_queue_info(struct vfn_vduse *v, uint32_t index, struct vduse_vq_info *info)
{
	int ret;

	*info = (struct vduse_vq_info){.index = index};
	ret = vduse_ioctl(v, VDUSE_VQ_GET_INFO, info);
	if (ret < 0)
		VDUSE_LOG(ERR, v, "queue %u: the kernel does not tell its ring: %s", index,
			strerror(-ret));
	return ret == 0;
}

/* Bytes of an area (virtio 1.3, 2.7 and 2.8); 0: descriptors, 1: the driver's, 2: the device's. */
static uint64_t
area_size(const struct vfn_vduse *v, unsigned int area, uint64_t num)
{
	uint64_t event = v->features & FEATURE(VIRTIO_RING_F_EVENT_IDX) ? sizeof(uint16_t) : 0;

	if (area == 0)
		return num * sizeof(struct vring_desc);
	if (is_packed(v))
		return sizeof(struct vring_packed_desc_event);
	return event +
		(area == 1 ? sizeof(struct vring_avail) + num * sizeof(uint16_t) :
			     sizeof(struct vring_used) + num * sizeof(struct vring_used_elem));
}

/* Is there a range for nothing but a ring, as the kernel's drivers allocate them? */
static bool
is_ring(struct vfn_vduse *v, const struct region *r, const struct vduse_vq_info *info)
{
	const uint64_t at[3] = {info->desc_addr, info->driver_addr, info->device_addr};
	uint64_t page = sysconf(_SC_PAGESIZE), size = 0;
	unsigned int i;

	for (i = 0; i < 3; i++)
		size += (area_size(v, i, info->num) + page - 1) / page * page;
	for (i = 0; i < 3; i++)
		if (at[i] >= r->start && at[i] - r->start < page)
			return r->last - r->start < 2 * size;
	return false;
}

/*
 * Are buffers within reach? The kernel lists what its drivers' buffers are in with the first of
 * them, which may be long after DRIVER_OK, and does not say so. A kick comes after that.
 */
bool
vduse_buffers_mapped(struct vfn_vduse *v)
{
	struct vduse_vq_info info[VFN_VDUSE_QUEUES];
	uint32_t i, q;
	bool ring;

	for (q = 0; q < VFN_VDUSE_QUEUES; q++)
		if (!vduse_queue_info(v, q, &info[q]))
			return false;
	for (i = 0; i < v->nb_regions; i++) {
		ring = false;
		for (q = 0; q < VFN_VDUSE_QUEUES; q++)
			ring |= info[q].ready && is_ring(v, &v->region[i], &info[q]);
		if (!ring)
			return true;
	}
	return false;
}

/* Of a split ring that is in use nobody but itself tells where it stands. */
static bool
used_idx(struct vfn_vduse *v, uint64_t device, uint16_t *idx)
{
	uint64_t at = device + offsetof(struct vring_used, idx);
	const struct region *r = vduse_iotlb_find(v, at, sizeof(*idx));

	if (r == NULL)
		return false;
	*idx = __atomic_load_n((uint16_t *)(r->map->host + (at - r->start)), __ATOMIC_RELAXED);
	return true;
}

/* No slot was ever used (2.8.1): it stands where the kernel says. */
static bool
is_unused(const struct region *r, const struct vduse_vq_info *info)
{
	const struct vring_packed_desc *desc =
		(const void *)(r->map->host + (info->desc_addr - r->start));
	uint16_t flags = 0;
	uint32_t i;

	for (i = 0; i < info->num; i++)
		flags |= __atomic_load_n(&desc[i].flags, __ATOMIC_RELAXED);
	return !(flags & 1u << VRING_PACKED_DESC_F_USED);
}

/* The ring as the function gets it; NULL or what is wrong with it. */
static const char *
get_ring(struct vfn_vduse *v, const struct vduse_vq_info *info, struct vfn_vpci_ring *ring,
	struct vfn_vduse_area *area)
{
	const uint64_t at[3] = {info->desc_addr, info->driver_addr, info->device_addr};
	const struct region *r, *desc = NULL;
	struct queue *q = &v->queue[info->index];
	struct stat st;
	unsigned int i;

	if (info->num == 0 || info->num > QUEUE_SIZE)
		return "its size is not offered";
	for (i = 0; i < 3; i++) {
		r = vduse_iotlb_find(v, at[i], area_size(v, i, info->num));
		if (r == NULL)
			return "an area of it is not in the memory that the kernel lists";
		desc = i == 0 ? r : desc;
	}
	*area = (struct vfn_vduse_area){
		.iova = desc->start, .map = desc->map, .packed = is_packed(v), .how = v->how};
	if (fstat(v->fd, &st) == 0) {
		area->dev = st.st_dev;
		area->ino = st.st_ino;
	}
	*ring = (struct vfn_vpci_ring){.desc = at[0],
		.driver = at[1],
		.device = at[2],
		.dirty = at[2],
		.size = info->num,
		.kickfd = q->kick_fd,
		.callfd = v->event_irqs ? q->irq_fd : -1};
	if (!area->packed) {
		if (!used_idx(v, at[2], &ring->used))
			return "its used ring cannot be read";
		ring->avail = v->how == VFN_VDUSE_RESUMED ? ring->used : info->split.avail_index;
		return NULL;
	}
	if ((info->packed.last_avail_idx | info->packed.last_used_idx) > 0x7fff ||
		(info->packed.last_avail_counter | info->packed.last_used_counter) > 1)
		return "its position is none of a ring";
	ring->avail = info->packed.last_avail_idx | info->packed.last_avail_counter << 15;
	ring->used = info->packed.last_used_idx | info->packed.last_used_counter << 15;
	if (area->how == VFN_VDUSE_RESUMED && is_unused(desc, info))
		area->how = VFN_VDUSE_NEW;
	return NULL;
}

static int
start(struct vfn_vduse *v, uint32_t index, struct vfn_vpci_ring *ring)
{
	const struct vfn_link_ops *ops = v->pci->link->ops;
	int ret = vfn_vpci_queue_start(v->pci, index, ring);

	/* Vector 0 is the configuration's. */
	if (ret == 0 && !v->event_irqs)
		ret = ops->set_irq_call(v->pci->link, index + 1, &v->queue[index].call);
	return ret;
}

void
vduse_queue_start(struct vfn_vduse *v, uint32_t index)
{
	struct queue *q = &v->queue[index];
	struct vduse_vq_eventfd kick = {.index = index, .fd = q->kick_fd};
	struct vduse_vq_info info;
	struct vfn_vduse_area area;
	struct vfn_vpci_ring ring;
	const char *why = NULL;
	int ret;

	if (!vduse_queue_info(v, index, &info)) {
		q->off = true;
		return;
	}
	why = get_ring(v, &info, &ring, &area);
	if (why == NULL) {
		ret = vduse_ioctl(v, VDUSE_VQ_SETUP_KICKFD, &kick);
		if (ret == 0)
			ret = v->owner->ring(v->data, index, &ring, &area);
		if (ret == 0) {
			ret = start(v, index, &ring);
			if (ret < 0 && v->owner->refused(v->data, index, &ring, &area))
				ret = start(v, index, &ring);
		}
		why = ret == -ENOENT   ? "nobody knows where it stands" :
			ret == -EINVAL ? "the function refuses it" :
			ret < 0	       ? strerror(-ret) :
					 NULL;
	}
	q->started = why == NULL;
	q->off = !q->started;
	if (q->started)
		VDUSE_LOG(DEBUG, v, "queue %u started at 0x%x", index, ring.avail);
	else
		VDUSE_COMPLAIN(v, "queue %u stays off: %s (size %u, areas 0x%llx 0x%llx 0x%llx)",
			index, why, info.num, info.desc_addr, info.driver_addr, info.device_addr);
}

static void
stopped(struct vfn_vduse *v, uint32_t index)
{
	const struct vfn_link_ops *ops = v->pci->link->ops;
	struct queue *q = &v->queue[index];
	struct vfn_vpci_ring ring = {0};

	if (!v->event_irqs && ops->set_irq_call(v->pci->link, index + 1, NULL) < 0)
		vfn_vpci_fail(v->pci, "it keeps a call back that is to end");
	q->started = false;
	q->have_stopped = vfn_vpci_queue_leave(v->pci, index, &ring) != -ENODEV;
	if (!q->have_stopped) {
		VDUSE_LOG(ERR, v, "queue %u is off, and nobody knows where it stood", index);
		return;
	}
	q->avail = ring.avail;
	q->used = ring.used;
	v->owner->stopped(v->data, index, &ring);
	VDUSE_LOG(DEBUG, v, "queue %u stopped at 0x%x", index, ring.avail);
}

/* GET_VQ_STATE: who asks is about to stop it, so it stands still from here on. */
int
vduse_queue_position(struct vfn_vduse *v, uint32_t index, struct vduse_vq_state *state)
{
	struct vduse_vq_info info;
	struct queue *q;

	if (index >= VFN_VDUSE_QUEUES) {
		VDUSE_COMPLAIN(v, "queue %u is asked for: there are %u", index, VFN_VDUSE_QUEUES);
		return -EINVAL;
	}
	q = &v->queue[index];
	if (q->started) {
		if (vfn_vpci_queue_suspend(v->pci, index) < 0)
			return -EIO;
		stopped(v, index);
		q->off = true;
	}
	*state = (struct vduse_vq_state){.index = index};
	if (!q->have_stopped) {
		if (!vduse_queue_info(v, index, &info))
			return -EIO;
		/* As it was set, the longer of the two. */
		state->packed = info.packed;
		return 0;
	}
	if (!is_packed(v)) {
		state->split.avail_index = q->avail;
		return 0;
	}
	state->packed.last_avail_counter = q->avail >> 15;
	state->packed.last_avail_idx = q->avail & 0x7fff;
	state->packed.last_used_counter = q->used >> 15;
	state->packed.last_used_idx = q->used & 0x7fff;
	return 0;
}

/* Everything stands still on return, unless the function is failed. */
void
vduse_queues_stop(struct vfn_vduse *v)
{
	uint32_t i;

	if (vfn_vpci_suspend(v->pci) < 0)
		VDUSE_LOG(ERR, v,
			"the function is reset while it runs: positions of queues are not exact");
	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		if (v->queue[i].started)
			stopped(v, i);
}

/* Eventfds for as long as the device is served: another kick may always be on its way. */
int
vduse_queues_open(struct vfn_vduse *v)
{
	uint32_t i;

	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		struct queue *q = &v->queue[i];

		q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		q->irq_fd = v->event_irqs ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
		if (q->kick_fd < 0 || (v->event_irqs && q->irq_fd < 0))
			return -errno;
	}
	return 0;
}

void
vduse_queues_close(struct vfn_vduse *v)
{
	uint32_t i;

	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		struct queue *q = &v->queue[i];

		if (q->kick_fd >= 0)
			close(q->kick_fd);
		if (q->irq_fd >= 0)
			close(q->irq_fd);
		q->kick_fd = q->irq_fd = -1;
	}
}

/* A poller of the function's, or the adaptor's thread. */
bool
vduse_inject(struct vfn_irq_call *call)
{
	struct queue *q = (struct queue *)((char *)call - offsetof(struct queue, call));
	struct vfn_vduse *v = q->vduse;

	/* It is refused while the driver resets the device: then nobody waits for it. */
	if (v->sys->ioctl(v->fd, VDUSE_VQ_INJECT_IRQ, &q->index) < 0)
		__atomic_fetch_add(&v->irqs_refused, 1, __ATOMIC_RELAXED);
	else
		__atomic_fetch_add(&v->interrupts, 1, __ATOMIC_RELAXED);
	return true;
}
