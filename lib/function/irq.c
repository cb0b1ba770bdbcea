/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Interrupts (virtio 1.3, 4.1.4.5, 4.1.5.3, 4.1.5.4): messages where the driver has MSI-X on, each
 * masked or not, else the interrupt pin and ISR. Both are eventfds of the link's; a message may be
 * a call of the driver's.
 */

#include <unistd.h>

#include <rte_alarm.h>
#include <rte_branch_prediction.h>

#include "fd.h"
#include "function.h"
#include "vfn_signal.h"

/* While a guest's interrupts are held after one of them has blocked. */
#define HOLD_MS 1000

/* ---- any thread ---- */

static void irqs_release(void *arg);

/*
 * A guest that has blocked us once can have as many eventfds as it likes, and replace them all
 * the time. So it blocks us once in HOLD_MS.
 */
static __attribute__((noinline)) void
blocked(struct vfn_function *fn, unsigned int vector)
{
	__atomic_store_n(&fn->irq[vector].blocked, true, __ATOMIC_RELAXED);
	if (!__atomic_exchange_n(&fn->irq_told, true, __ATOMIC_RELAXED))
		FN_LOG(ERR, fn, "vector %u is off until its eventfd is replaced: it blocks",
			vector);
	if (!__atomic_exchange_n(&fn->irqs_held, true, __ATOMIC_RELAXED) &&
		rte_eal_alarm_set(HOLD_MS * 1000, irqs_release, fn) != 0)
		__atomic_store_n(&fn->irqs_held, false, __ATOMIC_RELAXED);
}

/*
 * Signal a vector's eventfd; false if it is not to be signalled any more. Not in line: mostly
 * nobody is called.
 */
static __attribute__((noinline)) bool
signal_vector(struct vfn_function *fn, unsigned int vector, int fd)
{
	if (unlikely(__atomic_load_n(&fn->irq[vector].blocked, __ATOMIC_RELAXED)))
		return false;
	if (unlikely(__atomic_load_n(&fn->irqs_held, __ATOMIC_RELAXED)) || likely(vfn_signal(fd)))
		return true;
	blocked(fn, vector);
	return false;
}

/* In whichever way the driver has chosen; false: nobody is. */
static bool
interrupt(struct vfn_function *fn, unsigned int vector)
{
	const struct vfn_irq *irq = &fn->irq[vector];

	if (irq->call != NULL)
		return irq->call->run(irq->call);
	return irq->fd >= 0 && signal_vector(fn, vector, irq->fd);
}

/* On the pin. ISR says why, whether anybody is interrupted or not. */
static void
raise_intx(struct vfn_function *fn, uint8_t why)
{
	__atomic_fetch_or(&fn->isr, why, __ATOMIC_ACQ_REL);
	if (!vfn_pci_intx_off(fn) && fn->irq[VFN_VECTOR_INTX].fd >= 0)
		signal_vector(fn, VFN_VECTOR_INTX, fn->irq[VFN_VECTOR_INTX].fd);
}

/* Whatever the way is. True: somebody was interrupted, or will be. */
static __attribute__((noinline)) bool
raise_irq(struct vfn_function *fn, unsigned int vector, uint8_t why)
{
	if (!vfn_pci_msix_on(fn)) {
		raise_intx(fn, why);
		return true;
	}
	if (vector == NO_VECTOR)
		return false;
	if (vfn_pci_msix_masked(fn, vector)) {
		__atomic_store_n(&fn->irq[vector].pending, true, __ATOMIC_RELAXED);
		return true;
	}
	return interrupt(fn, vector);
}

/* Poller. */
static __attribute__((noinline)) void
call_slowly(struct vfn_queue *q)
{
	if (q->call_fd == VFN_CALL_SLOWLY && raise_irq(q->fn, q->call_vector, VFN_ISR_QUEUE))
		q->stats[VFN_STAT_CALLS]++;
}

void
vfn_queue_call(struct vfn_queue *q)
{
	if (!vringh_need_notify(&q->vr))
		return;
	if (unlikely(q->call_fd < 0)) {
		call_slowly(q);
	} else if (likely(signal_vector(q->fn, q->call_vector, q->call_fd))) {
		q->stats[VFN_STAT_CALLS]++;
	} else {
		q->stats[VFN_STAT_CALLS_BLOCKED]++;
		q->call_fd = VFN_CALL_NOBODY;
	}
}

/* ---- control ---- */

/* How a queue's driver is called, from now on. */
void
vfn_queue_irq(struct vfn_queue *q)
{
	struct vfn_function *fn = q->fn;
	uint16_t vector = vfn_queue_regs(q)->vector;

	q->call_vector = vector;
	if (!vfn_pci_msix_on(fn) ||
		(vector != NO_VECTOR &&
			(vfn_pci_msix_masked(fn, vector) || fn->irq[vector].call != NULL)))
		q->call_fd = VFN_CALL_SLOWLY;
	else if (vector == NO_VECTOR || fn->irq[vector].fd < 0 || fn->irq[vector].blocked)
		q->call_fd = VFN_CALL_NOBODY;
	else
		q->call_fd = fn->irq[vector].fd;
}

/*
 * What happened is not told any more once its event has no vector (4.1.5.3.1, 4.1.5.4.1), after a
 * reset, say; other events of that vector are.
 */
static void
forget_unmapped(struct vfn_function *fn)
{
	bool mapped[VFN_MAX_VECTORS] = {false};
	unsigned int i;

	if (fn->regs.config_vector != NO_VECTOR)
		mapped[fn->regs.config_vector] = true;
	for (i = 0; i < fn->nb_queues; i++)
		if (fn->regs.queue[i].vector != NO_VECTOR)
			mapped[fn->regs.queue[i].vector] = true;
	for (i = 0; i < vfn_nb_vectors(fn); i++)
		if (!mapped[i])
			__atomic_store_n(&fn->irq[i].pending, false, __ATOMIC_RELAXED);
}

void
vfn_irqs_update(struct vfn_function *fn)
{
	unsigned int i;

	for (i = 0; i < fn->nb_queues; i++)
		vfn_queue_irq(&fn->queue[i]);
	forget_unmapped(fn);
}

void
vfn_irqs_deliver(struct vfn_function *fn)
{
	unsigned int i;

	for (i = 0; i < vfn_nb_vectors(fn); i++)
		if (vfn_pci_msix_on(fn) && !vfn_pci_msix_masked(fn, i) &&
			__atomic_exchange_n(&fn->irq[i].pending, false, __ATOMIC_RELAXED))
			interrupt(fn, i);
	if (!vfn_pci_msix_on(fn) && __atomic_load_n(&fn->isr, __ATOMIC_RELAXED) != 0)
		raise_intx(fn, 0);
}

/* Change how a vector is signalled while no poller does: to another fd, or another call. */
static int
change(struct vfn_function *fn, unsigned int vector, const int *fd, struct vfn_irq_call *call)
{
	bool used = false;
	unsigned int i;
	int ret = 0;

	if (vector >= vfn_nb_vectors(fn) && vector != VFN_VECTOR_INTX)
		return -EINVAL;
	for (i = 0; i < fn->nb_queues; i++)
		if (vfn_queue_polled(&fn->queue[i]) &&
			(fn->regs.queue[i].vector == vector || vector == VFN_VECTOR_INTX))
			used = true;
	if (used)
		vfn_quiesce(fn);
	if (fd != NULL)
		ret = vfn_fd_replace(&fn->irq[vector].fd, *fd);
	else
		fn->irq[vector].call = call;
	if (ret == 0)
		fn->irq[vector].blocked = false;
	for (i = 0; i < fn->nb_queues; i++)
		if (fn->regs.queue[i].vector == vector)
			vfn_queue_irq(&fn->queue[i]);
	if (used)
		vfn_resume(fn);
	return ret;
}

int
vfn_irq_set(struct vfn_function *fn, unsigned int vector, int fd)
{
	return change(fn, vector, &fd, NULL);
}

int
vfn_irq_set_call(struct vfn_function *fn, unsigned int vector, struct vfn_irq_call *call)
{
	return vector == VFN_VECTOR_INTX ? -EINVAL : change(fn, vector, NULL, call);
}

void
vfn_config_changed(struct vfn_function *fn)
{
	if (!(fn->regs.status & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	/* Also with MSI-X: drivers without one look there. */
	__atomic_fetch_or(&fn->isr, VFN_ISR_CONFIG, __ATOMIC_ACQ_REL);
	raise_irq(fn, fn->regs.config_vector, VFN_ISR_CONFIG);
}

/* On EAL's interrupt thread. Who was not called meanwhile is now. */
static void
irqs_release(void *arg)
{
	struct vfn_function *fn = arg;
	unsigned int i;

	vfn_lock(fn);
	__atomic_store_n(&fn->irqs_held, false, __ATOMIC_RELAXED);
	for (i = 0; i < fn->nb_queues; i++)
		if (vfn_queue_active(&fn->queue[i]))
			raise_irq(fn, fn->regs.queue[i].vector, VFN_ISR_QUEUE);
	if (__atomic_load_n(&fn->isr, __ATOMIC_RELAXED) & VFN_ISR_CONFIG)
		vfn_config_changed(fn);
	vfn_unlock(fn);
}

void
vfn_irqs_cancel(struct vfn_function *fn)
{
	rte_eal_alarm_cancel(irqs_release, fn);
}
