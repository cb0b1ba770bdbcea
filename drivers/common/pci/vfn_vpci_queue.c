/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Queues of the function (virtio 1.3, 4.1.5.1.3), and what virtio has no register for. */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <rte_cycles.h>

#include "vfn_vpci_regs.h"

int
vfn_vpci_queue_reset(struct vfn_vpci *pci, uint16_t queue)
{
	if (pci->failed)
		return -EIO;
	COMMON_WRITE(pci, queue_select, queue);
	COMMON_WRITE(pci, queue_reset, 1);
	return COMMON_WAIT(pci, queue_reset, UINT32_MAX, 0);
}

int
vfn_vpci_queue_off(struct vfn_vpci *pci, uint16_t queue)
{
	const struct vfn_link_ops *ops = pci->link->ops;
	int ret;

	COMMON_WRITE(pci, queue_select, queue);
	if (COMMON_READ(pci, queue_enable) == 1)
		return 0;
	ret = vfn_vpci_queue_reset(pci, queue);
	/* It may have been refused when it had them already. */
	if (ret == 0)
		ret = ops->set_irq(pci->link, VECTOR_QUEUE(queue), -1);
	return ret < 0 ? ret : ops->set_doorbell(pci->link, queue, -1);
}

/* Refused with the reason in queue_error, or enabled; a function that does neither is failed. */
static int
queue_enable(struct vfn_vpci *pci, uint16_t queue)
{
	uint64_t end = rte_get_timer_cycles() + rte_get_timer_hz() / 1000 * pci->answer_ms;
	uint16_t error;

	COMMON_WRITE(pci, queue_enable, 1);
	do {
		if (COMMON_READ(pci, queue_enable) == 1)
			return 0;
		error = VENDOR_READ(pci, queue_error);
		if (error != 0 && error != UINT16_MAX) {
			PCI_LOG(ERR, pci,
				"queue %u was refused by the function, reason %u; it stays off",
				queue, error);
			return -EINVAL;
		}
		usleep(10);
	} while (!vfn_vpci_gone(pci) && rte_get_timer_cycles() < end);
	return COMMON_WAIT(pci, queue_enable, UINT32_MAX, 1);
}

/* Its notifications: vectors that the function cannot have read back as none (4.1.5.1.2). */
static int
connect_eventfds(struct vfn_vpci *pci, uint16_t queue, const struct vfn_vpci_ring *ring)
{
	const struct vfn_link_ops *ops = pci->link->ops;
	int ret;

	ret = ops->set_irq(pci->link, VECTOR_QUEUE(queue), ring->callfd);
	if (ret == 0)
		ret = ops->set_doorbell(pci->link, queue, ring->kickfd);
	if (ret == 0)
		ret = vfn_vpci_unmask(pci, VECTOR_QUEUE(queue));
	if (ret < 0)
		PCI_LOG(ERR, pci, "queue %u: cannot use its kick or call fd: %s", queue,
			strerror(-ret));
	return ret;
}

int
vfn_vpci_queue_start(struct vfn_vpci *pci, uint16_t queue, const struct vfn_vpci_ring *ring)
{
	int ret = pci->failed ? -EIO : connect_eventfds(pci, queue, ring);

	if (ret < 0)
		return ret;
	COMMON_WRITE(pci, queue_select, queue);
	/* Suspended, or from parts that were taken; it moves only by a reset (2.6.1). */
	if (COMMON_READ(pci, queue_enable) == 1 && vfn_vpci_queue_reset(pci, queue) < 0)
		return -EIO;
	COMMON_WRITE(pci, queue_size, ring->size);
	COMMON_WRITE(pci, queue_msix_vector, VECTOR_QUEUE(queue));
	WRITE64(COMMON, pci, queue_desc, ring->desc);
	WRITE64(COMMON, pci, queue_driver, ring->driver);
	WRITE64(COMMON, pci, queue_device, ring->device);
	VENDOR_WRITE(pci, queue_avail, ring->avail);
	VENDOR_WRITE(pci, queue_used, ring->used);
	WRITE64(VENDOR, pci, queue_dirty, ring->dirty);
	WRITE64(VENDOR, pci, queue_inflight, ring->inflight);
	VENDOR_WRITE(pci, queue_inflight_len, ring->inflight_len);
	return queue_enable(pci, queue);
}

int
vfn_vpci_queue_suspend(struct vfn_vpci *pci, uint16_t queue)
{
	if (pci->failed)
		return -EIO;
	COMMON_WRITE(pci, queue_select, queue);
	VENDOR_WRITE(pci, queue_suspend, 1);
	return VENDOR_WAIT(pci, queue_suspend, 1, pci->drain_ms);
}

int
vfn_vpci_queue_resume(struct vfn_vpci *pci, uint16_t queue)
{
	if (pci->failed)
		return -EIO;
	COMMON_WRITE(pci, queue_select, queue);
	VENDOR_WRITE(pci, queue_suspend, 0);
	return VENDOR_WAIT(pci, queue_suspend, 0, pci->answer_ms);
}

int
vfn_vpci_suspend(struct vfn_vpci *pci)
{
	if (pci->failed)
		return -EIO;
	VENDOR_WRITE(pci, suspend, 1);
	return VENDOR_WAIT(pci, suspend, 1, pci->drain_ms);
}

int
vfn_vpci_queue_leave(struct vfn_vpci *pci, uint16_t queue, struct vfn_vpci_ring *ring)
{
	const struct vfn_link_ops *ops = pci->link->ops;

	COMMON_WRITE(pci, queue_select, queue);
	ring->avail = VENDOR_READ(pci, queue_avail);
	ring->used = VENDOR_READ(pci, queue_used);
	ring->dirty = READ64(VENDOR, pci, queue_dirty);
	if (ops->set_irq(pci->link, VECTOR_QUEUE(queue), -1) < 0 ||
		ops->set_doorbell(pci->link, queue, -1) < 0)
		vfn_vpci_fail(pci, "it keeps eventfds that are to be given back");
	if (vfn_vpci_gone(pci)) {
		vfn_vpci_fail(pci, "its link is gone");
		return -ENODEV;
	}
	return pci->failed ? -EIO : 0;
}

void
vfn_vpci_queue_info(struct vfn_vpci *pci, uint16_t queue, struct vfn_vpci_queue *info)
{
	COMMON_WRITE(pci, queue_select, queue);
	*info = (struct vfn_vpci_queue){
		.ring.desc = READ64(COMMON, pci, queue_desc),
		.ring.driver = READ64(COMMON, pci, queue_driver),
		.ring.device = READ64(COMMON, pci, queue_device),
		.ring.dirty = READ64(VENDOR, pci, queue_dirty),
		.ring.size = COMMON_READ(pci, queue_size),
		.ring.avail = VENDOR_READ(pci, queue_avail),
		.ring.used = VENDOR_READ(pci, queue_used),
		.ring.kickfd = -1,
		.ring.callfd = -1,
		.enabled = COMMON_READ(pci, queue_enable) == 1,
		.suspended = VENDOR_READ(pci, queue_suspend) == 1,
		.error = VENDOR_READ(pci, queue_error),
	};
}

uint64_t
vfn_vpci_doorbell(struct vfn_vpci *pci, uint16_t queue)
{
	COMMON_WRITE(pci, queue_select, queue);
	return pci->notify.offset + (uint64_t)COMMON_READ(pci, queue_notify_off) * pci->notify_step;
}

int
vfn_vpci_stats(struct vfn_vpci *pci, uint16_t queue, uint64_t *value, unsigned int n)
{
	return vfn_vpci_place_read(
		pci, &pci->stats, queue * pci->stats_step, value, n * sizeof(value[0]));
}

bool
vfn_vpci_does_jobs(const struct vfn_vpci *pci)
{
	return pci->link->ops->set_job != NULL;
}

int
vfn_vpci_set_job(struct vfn_vpci *pci, uint16_t queue, struct vfn_job *job)
{
	int ret = pci->link->ops->set_job(pci->link, queue, job);

	if (ret < 0 && job == NULL)
		vfn_vpci_fail(pci, "it keeps a job that is to end");
	return ret;
}
