/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Guests behind an IOMMU (VIRTIO_F_ACCESS_PLATFORM): the front-end tells what addresses mean, with
 * IOTLB messages, and is asked for that on its back channel. The function has the table, and asks
 * again where nobody answers.
 *
 * librte_vhost hears of none of it. It would keep a table of its own for each ring, and hold the
 * device back until rings are in there. So the feature is negotiated by the driver alone, and
 * librte_vhost is given addresses of rings that it finds, and reads, in the guest's memory; whoever
 * starts a ring takes its place and its position from here.
 *
 * On librte_vhost's message thread with the device's lock held, but for miss().
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vhost_types.h>
#include <linux/virtio_config.h>

#include <rte_common.h>
#include <rte_vhost.h>

#include "vfn_drv.h"
#include "vfn_vu_msg.h"

#define BIT_ACCESS_PLATFORM (UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM)

/* Of the largest area of a ring. */
#define AREA_MAX (16u * 32768)

/* Back-end message types: an IOTLB message without an answer. */
#define BACK_IOTLB_MSG 1
#define VERSION	       1

/* Front-ends keep it to themselves where the guest has no IOMMU. Relays (lm=shadow) translate not.
 */
uint64_t
vfn_iommu_offer(const struct vfn_dev *dev)
{
	if (dev->dma == VFN_DMA_PLAIN ||
		(dev->dma == VFN_DMA_IOMMU &&
			(dev->pci.link->ops->set_translated == NULL || dev->lm == VFN_LM_SHADOW)))
		return 0;
	return BIT_ACCESS_PLATFORM;
}

bool
vfn_iommu_is(const struct vfn_guest *guest)
{
	return guest->own_features & BIT_ACCESS_PLATFORM;
}

/* A poller, or whoever starts a ring: nothing is locked, and nothing waits. */
static bool
miss(struct vfn_miss_call *call, const struct vfn_miss *m)
{
	struct vfn_iommu_guest *iommu = container_of(call, struct vfn_iommu_guest, call);
	struct {
		uint32_t request, flags, size;
		struct vhost_iotlb_msg iotlb;
	} __attribute__((packed)) msg = {BACK_IOTLB_MSG, VERSION, sizeof(msg.iotlb),
		{
			.iova = m->iova,
			.perm = (m->read ? VHOST_ACCESS_RO : 0) | (m->write ? VHOST_ACCESS_WO : 0),
			.type = VHOST_IOTLB_MISS,
		}};
	bool sent = send(iommu->fd, &msg, sizeof(msg), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(msg);

	__atomic_fetch_add(sent ? &iommu->misses : &iommu->unsent, 1, __ATOMIC_RELAXED);
	return sent;
}

static const char *
cannot(const struct vfn_dev *dev, const struct vfn_guest *guest)
{
	if (dev->dma != VFN_DMA_IOMMU)
		return "that needs dma=iommu";
	if (vfn_iommu_offer(dev) == 0)
		return dev->lm == VFN_LM_SHADOW ? "lm=shadow does not translate" :
						  "its link does not translate";
	/* Whoever was there before us has let librte_vhost negotiate it. */
	if (!vfn_iommu_is(guest))
		return "the application did not tell of its connection "
		       "(rte_vdpa_vfn_new_connection())";
	return guest->back_fd < 0 ? "its front-end gave no back channel" : NULL;
}

/* A guest has the device, and its memory is mapped. */
int
vfn_iommu_start(struct vfn_dev *dev, uint64_t features)
{
	struct vfn_iommu_guest *iommu = &dev->iommu;
	const char *why;
	int ret;

	if (!(features & BIT_ACCESS_PLATFORM))
		return 0;
	why = cannot(dev, dev->guest);
	if (why != NULL) {
		DEV_LOG(ERR, dev, "takes no guest: it is behind an IOMMU, and %s", why);
		return -ENOTSUP;
	}
	*iommu = (struct vfn_iommu_guest){.call.run = miss};
	iommu->fd = fcntl(dev->guest->back_fd, F_DUPFD_CLOEXEC, 0);
	if (iommu->fd < 0)
		return -errno;
	ret = dev->pci.link->ops->set_translated(dev->pci.link, &iommu->call);
	iommu->on = ret == 0;
	if (ret < 0)
		close(iommu->fd);
	return ret;
}

/* The function is reset, or gone with its link. */
void
vfn_iommu_stop(struct vfn_dev *dev, bool gone)
{
	struct vfn_iommu_guest *iommu = &dev->iommu;

	if (!iommu->on)
		return;
	if (!gone && dev->pci.link->ops->set_translated(dev->pci.link, NULL) < 0)
		DEV_LOG(ERR, dev, "addresses are translated on");
	close(iommu->fd);
	iommu->on = false;
}

/* ---- messages ---- */

/* SET_BACKEND_REQ_FD: librte_vhost has it, too. */
void
vfn_iommu_back(struct vfn_dev *dev, struct vfn_guest *guest, int fd)
{
	if (guest->back_fd >= 0)
		close(guest->back_fd);
	guest->back_fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (dev->guest != guest || !dev->iommu.on || guest->back_fd < 0)
		return;
	/* Whoever asks goes on asking there. */
	if (dup3(guest->back_fd, dev->iommu.fd, O_CLOEXEC) < 0)
		DEV_LOG(ERR, dev, "a new back channel is not used: %s", strerror(errno));
}

/* Somewhere in the guest's memory, for librte_vhost. False: there is no memory. */
static bool
place(const struct vfn_guest *guest, uint64_t *uva)
{
	struct rte_vhost_memory *mem = NULL;
	bool found = false;
	uint32_t i;

	if (!guest->memory || rte_vhost_get_mem_table(guest->vid, &mem) < 0)
		return false;
	for (i = 0; i < mem->nregions && !found; i++) {
		found = mem->regions[i].size >= AREA_MAX;
		*uva = mem->regions[i].guest_user_addr;
	}
	free(mem);
	return found;
}

/* SET_VRING_ADDR, SET_VRING_BASE and GET_VRING_BASE of a ring that the device has. */
bool
vfn_iommu_ring(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	struct vfn_iova_ring *ring;
	uint64_t uva;

	if (!vfn_iommu_is(guest))
		return true;
	if (guest->iova == NULL)
		guest->iova = calloc(VFN_MAX_QUEUES, sizeof(*guest->iova));
	if (guest->iova == NULL)
		return false;
	ring = &guest->iova[msg->state.index];
	if (msg->request == SET_VRING_BASE) {
		ring->base = msg->state.num;
	} else if (msg->request == GET_VRING_BASE) {
		/* What runs is stopped, and says so itself. */
		if (dev->guest != guest || !dev->started[msg->state.index])
			rte_vhost_set_vring_base(
				guest->vid, msg->state.index, ring->base, ring->base);
	} else {
		if (!place(guest, &uva)) {
			DEV_LOG(ERR, dev, "queue %u: its addresses come before memory",
				msg->state.index);
			return false;
		}
		ring->desc = msg->addr.desc;
		ring->driver = msg->addr.avail;
		ring->device = msg->addr.used;
		msg->addr.desc = msg->addr.avail = msg->addr.used = uva;
		msg->addr.flags = 0;
	}
	return true;
}

/* What librte_vhost does not know of a ring. */
void
vfn_iommu_ring_get(const struct vfn_guest *guest, uint16_t queue, struct vfn_vpci_ring *ring)
{
	const struct vfn_iova_ring none = {0},
				   *r = guest->iova != NULL ? &guest->iova[queue] : &none;

	ring->desc = r->desc;
	ring->driver = r->driver;
	ring->device = r->device;
	ring->avail = ring->used = r->base;
}

void
vfn_iommu_ring_stopped(struct vfn_guest *guest, uint16_t queue, uint16_t base)
{
	if (guest->iova != NULL)
		guest->iova[queue].base = base;
}

/* Of front-end addresses: the region, and how much of the range is in it. */
static const struct vfn_mem_region *
piece(const struct vfn_dev *dev, uint64_t uva, uint64_t *len)
{
	uint32_t i;

	for (i = 0; i < dev->memory.nb_regions; i++) {
		const struct vfn_mem_region *r = &dev->memory.region[i];

		if (uva - r->uva >= r->size)
			continue;
		*len = RTE_MIN(*len, r->size - (uva - r->uva));
		return r;
	}
	return NULL;
}

/* Front-end addresses that are next to each other may be of two regions. */
static int
update(struct vfn_dev *dev, const struct vhost_iotlb_msg *m, bool apply)
{
	const struct vfn_link_ops *ops = dev->pci.link->ops;
	uint64_t done = 0;
	int ret = 0;

	while (done < m->size && ret == 0) {
		uint64_t uva = m->uaddr + done, len = m->size - done;
		const struct vfn_mem_region *r = piece(dev, uva, &len);
		struct vfn_translation t = {
			.iova = m->iova + done,
			.len = len,
			.readable = m->perm & VHOST_ACCESS_RO,
			.writable = m->perm & VHOST_ACCESS_WO,
		};

		if (r == NULL)
			return -EFAULT;
		t.addr = uva - r->uva + r->gpa;
		if (apply)
			ret = ops->translate(dev->pci.link, &t);
		done += len;
	}
	return ret;
}

static bool
message_ok(const struct vhost_iotlb_msg *m)
{
	switch (m->type) {
	case VHOST_IOTLB_UPDATE:
		return m->size > 0 && m->iova + (m->size - 1) >= m->iova &&
			m->uaddr + (m->size - 1) >= m->uaddr && m->perm >= VHOST_ACCESS_RO &&
			m->perm <= VHOST_ACCESS_RW;
	case VHOST_IOTLB_INVALIDATE:
		return m->size > 0 || m->iova == 0;
	case VHOST_IOTLB_ACCESS_FAIL:
		return m->iova + m->size >= m->iova;
	default:
		return false;
	}
}

static int
carry_out(struct vfn_dev *dev, const struct vhost_iotlb_msg *m)
{
	const struct vfn_link_ops *ops = dev->pci.link->ops;
	struct vfn_translation none = {.iova = m->iova, .len = RTE_MAX(m->size, 1u)};
	int ret;

	switch (m->type) {
	case VHOST_IOTLB_UPDATE:
		dev->iommu.updates++;
		ret = update(dev, m, false);
		return ret < 0 ? ret : update(dev, m, true);
	case VHOST_IOTLB_INVALIDATE:
		dev->iommu.invalidations++;
		/* From address 0 to the end, which is one more than can be said. */
		if (m->iova == 0 && m->size == UINT64_MAX)
			return ops->untranslate(dev->pci.link, 0, 0);
		return ops->untranslate(dev->pci.link, m->iova, m->size);
	default:
		return ops->translate(dev->pci.link, &none);
	}
}

/* IOTLB_MSG. What comes while the device does not run is asked for when it does. */
int
vfn_iommu_message(struct vfn_dev *dev, struct vfn_guest *guest, const struct vfn_vu_msg *msg)
{
	struct vhost_iotlb_msg m = {0};
	int ret = -EINVAL;

	memcpy(&m, &msg->iotlb, RTE_MIN(msg->size, sizeof(m)));
	if (vfn_iommu_is(guest) && message_ok(&m))
		ret = dev->guest == guest && dev->iommu.on ? carry_out(dev, &m) : 0;
	if (ret < 0) {
		dev->iommu.refused++;
		DEV_LOG(ERR, dev,
			"IOTLB message %u is refused (0x%llx, %llu"
			" bytes at 0x%llx, permissions %u): %s",
			m.type, m.iova, m.size, m.uaddr, m.perm,
			ret == -EFAULT ? "not in the guest's memory" : strerror(-ret));
	}
	return ret;
}
