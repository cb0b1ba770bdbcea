/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Functions whose memory was taken away while they used it, or that have a ring which they cannot
 * go on with: they ask for a reset. Control, but for vfn_lost_tell() and vfn_lost_ring(), by which
 * a poller has control look.
 */

#include <rte_alarm.h>
#include <rte_common.h>

#include "function.h"
#include "vfn_guard.h"

/* A function that cannot go on asks for a reset (2.1.2); until then it rests. */
void
vfn_lost_check(struct vfn_function *fn)
{
	bool memory = __atomic_load_n(&fn->memory_lost, __ATOMIC_ACQUIRE);

	if ((!memory && !__atomic_load_n(&fn->ring_lost, __ATOMIC_ACQUIRE)) ||
		(fn->regs.status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) !=
			VIRTIO_CONFIG_S_DRIVER_OK)
		return;
	vfn_quiesce(fn);
	fn->regs.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	vfn_resume(fn);
	FN_LOG(ERR, fn, "%s: every queue is stopped, the device needs a reset",
		memory ? "a file of the guest's memory was cut off while in use" :
			 "a queue broke, and none can be reset alone");
	vfn_config_changed(fn);
}

static void
check_all(void *arg)
{
	RTE_SET_USED(arg);
	vfn_foreach(vfn_lost_check);
}

/* Poller. */
void
vfn_lost_tell(void)
{
	if (__atomic_exchange_n(&vfn_guard_hit, false, __ATOMIC_ACQ_REL) &&
		rte_eal_alarm_set(1, check_all, NULL) != 0)
		__atomic_store_n(&vfn_guard_hit, true, __ATOMIC_RELEASE);
}

void
vfn_lost_ring(struct vfn_function *fn)
{
	__atomic_store_n(&fn->ring_lost, true, __ATOMIC_RELEASE);
	/* Without an alarm the next register write tells. */
	rte_eal_alarm_set(1, check_all, NULL);
}
