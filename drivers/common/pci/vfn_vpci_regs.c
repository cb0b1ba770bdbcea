/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Registers of the function through its link, and waiting for them. */

#include <errno.h>
#include <unistd.h>

#include <rte_cycles.h>

#include "vfn_vpci_regs.h"

RTE_LOG_REGISTER(vfn_vpci_logtype, pmd.common.vfn, NOTICE);

int
vfn_vpci_place_read(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	void *buf, size_t len)
{
	if (len > place->length || offset > place->length - len)
		return -EINVAL;
	return pci->link->ops->read(pci->link, place->region, place->offset + offset, buf, len);
}

int
vfn_vpci_place_write(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	const void *buf, size_t len)
{
	if (len > place->length || offset > place->length - len)
		return -EINVAL;
	return pci->link->ops->write(pci->link, place->region, place->offset + offset, buf, len);
}

static uint32_t
all_ones(size_t size)
{
	return UINT32_MAX >> (32 - 8 * size);
}

uint32_t
vfn_vpci_reg_read(
	struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset, size_t size)
{
	uint32_t v = 0;

	return vfn_vpci_place_read(pci, place, offset, &v, size) < 0 ? all_ones(size) : v;
}

void
vfn_vpci_reg_write(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	size_t size, uint32_t v)
{
	/* Is not taken where nobody is or nothing is to be written: then it does not read back. */
	(void)vfn_vpci_place_write(pci, place, offset, &v, size);
}

bool
vfn_vpci_gone(struct vfn_vpci *pci)
{
	return COMMON_READ(pci, device_status) == UINT8_MAX;
}

void
vfn_vpci_fail(struct vfn_vpci *pci, const char *reason)
{
	if (!pci->failed) {
		pci->failures++;
		pci->reason = reason;
		PCI_LOG(ERR, pci,
			"the function has failed: %s; what it may still touch stays mapped until "
			"it is reset",
			reason);
	}
	pci->failed = true;
}

void
vfn_vpci_lost(struct vfn_vpci *pci, const char *reason)
{
	pci->failures += !pci->failed;
	pci->reason = reason;
	pci->failed = true;
	PCI_LOG(ERR, pci, "the function is gone: %s", reason);
}

/* 0; -ETIMEDOUT; -ENODEV: there is nobody. */
static int
poll_reg(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset, size_t size,
	uint32_t mask, uint32_t v, uint32_t ms)
{
	uint64_t end = rte_get_timer_cycles() + rte_get_timer_hz() / 1000 * ms;
	uint32_t now;

	for (;;) {
		/* Before the look: who was not running for a while looks once more. */
		bool late = rte_get_timer_cycles() > end;

		now = vfn_vpci_reg_read(pci, place, offset, size);
		if (now == all_ones(size) && vfn_vpci_gone(pci))
			return -ENODEV;
		if ((now & mask) == v)
			return 0;
		if (late)
			return -ETIMEDOUT;
		usleep(10);
	}
}

static int
gone(struct vfn_vpci *pci)
{
	vfn_vpci_fail(pci, "its link is gone");
	return -EIO;
}

int
vfn_vpci_reg_wait(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	size_t size, uint32_t mask, uint32_t v, const char *what, uint32_t ms)
{
	int ret = poll_reg(pci, place, offset, size, mask, v, ms);

	if (ret == -ENODEV)
		return gone(pci);
	if (ret < 0) {
		PCI_LOG(ERR, pci, "the function does not answer for %u ms: %s stays", ms, what);
		vfn_vpci_fail(pci, what);
		return -EIO;
	}
	return 0;
}

int
vfn_vpci_reg_ask(struct vfn_vpci *pci, const struct vfn_vpci_place *place, uint32_t offset,
	size_t size, uint32_t mask, uint32_t v)
{
	int ret = poll_reg(pci, place, offset, size, mask, v, VFN_VPCI_ASK_MS);

	if (ret == -ENODEV)
		return gone(pci);
	return ret < 0 ? -EINVAL : 0;
}
