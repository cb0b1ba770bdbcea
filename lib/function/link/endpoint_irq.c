/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * An endpoint's interrupts and doorbells. Eventfds of MSI-X vectors and of doorbells are handed to
 * the function, which signals and waits for them itself. What it has no register for is done here:
 * the pin, which is masked each time that it is signalled, errors and requests.
 *
 * On the server's thread but where it says otherwise. What the other thread waits for is a
 * client's: it is never read, since that could block.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include <rte_common.h>

#include <vfn_closer.h>
#include <vfn_signal.h>

#include "../fd.h"
#include "../thread.h"
#include "endpoint.h"

/* So often somebody looks whether the function has broken, if the client wants to know. */
#define LOOK_MS 1000

/* What the irq thread was woken by. */
enum source { SOURCE_LINE, SOURCE_UNMASK, SOURCE_WAKE };

/* Edges, so that nobody has to read. */
static int
watch(struct vfn_endpoint *ep, int fd, enum source source)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = source};

	return epoll_ctl(ep->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* ---- the pin: irq_lock held ---- */

static bool
line_is_up(struct vfn_endpoint *ep)
{
	return !(ep_get(ep, VFN_REGION_CONFIG, EP_PCI_COMMAND, 2) & EP_PCI_COMMAND_INTX_OFF) &&
		(ep_get(ep, VFN_REGION_CONFIG, EP_PCI_STATUS, 2) & EP_PCI_STATUS_INTX) != 0;
}

static void
intx_raise(struct vfn_endpoint *ep)
{
	struct ep_intx *x = &ep->intx;

	x->masked = true;
	if (!vfn_signal(x->fd)) {
		EP_LOG(ERR, ep,
			"the interrupt pin is off until its eventfd is replaced: it blocks");
		vfn_fd_replace(&x->fd, -1);
	}
}

/* A level: what is still there when it is unmasked is signalled again. */
static void
intx_look(struct vfn_endpoint *ep)
{
	if (!ep->intx.masked && ep->intx.fd >= 0 && line_is_up(ep))
		intx_raise(ep);
}

static void
intx_unmask(struct vfn_endpoint *ep)
{
	ep->intx.masked = false;
	intx_look(ep);
}

static int
intx_unmask_fd(struct vfn_endpoint *ep, int fd)
{
	int ret;

	if (ep->intx.unmask_fd >= 0)
		epoll_ctl(ep->epoll_fd, EPOLL_CTL_DEL, ep->intx.unmask_fd, NULL);
	ret = vfn_fd_replace(&ep->intx.unmask_fd, fd);
	if (ret == 0 && fd >= 0)
		ret = watch(ep, ep->intx.unmask_fd, SOURCE_UNMASK);
	if (ret < 0)
		vfn_fd_replace(&ep->intx.unmask_fd, -1);
	return ret;
}

/* ---- the irq thread ---- */

/* It asks for a reset: of its memory some was taken away (2.1.2). */
static void
look_for_errors(struct vfn_endpoint *ep)
{
	bool broken = EP_GET(ep, COMMON, device_status) & VIRTIO_CONFIG_S_NEEDS_RESET;

	if (broken && !ep->broken)
		vfn_signal(ep->err_fd);
	ep->broken = broken;
}

static void *
pass_on(void *arg)
{
	struct vfn_endpoint *ep = arg;
	struct epoll_event event[4];
	bool look, quit;
	int i, n;

	do {
		pthread_mutex_lock(&ep->irq_lock);
		look = ep->err_fd >= 0;
		pthread_mutex_unlock(&ep->irq_lock);
		n = epoll_wait(ep->epoll_fd, event, RTE_DIM(event), look ? LOOK_MS : -1);
		pthread_mutex_lock(&ep->irq_lock);
		for (i = 0; i < n; i++) {
			if (event[i].data.u32 == SOURCE_LINE)
				intx_look(ep);
			else if (event[i].data.u32 == SOURCE_UNMASK)
				intx_unmask(ep);
		}
		if (ep->err_fd >= 0)
			look_for_errors(ep);
		quit = ep->quit;
		pthread_mutex_unlock(&ep->irq_lock);
	} while (!quit);
	return NULL;
}

static void
wake(struct vfn_endpoint *ep)
{
	eventfd_write(ep->irq_wake_fd, 1);
}

int
ep_irq_init(struct vfn_endpoint *ep)
{
	unsigned int i;
	int ret;

	for (i = 0; i < RTE_DIM(ep->msix_fd); i++)
		ep->msix_fd[i] = -1;
	for (i = 0; i < RTE_DIM(ep->doorbell_fd); i++)
		ep->doorbell_fd[i] = -1;
	ep->intx.fd = ep->intx.unmask_fd = ep->err_fd = ep->req_fd = -1;
	pthread_mutex_init(&ep->irq_lock, NULL);
	ep->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ep->irq_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ep->intx.line_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = ep->epoll_fd < 0 || ep->irq_wake_fd < 0 || ep->intx.line_fd < 0 ? -EMFILE : 0;
	if (ret == 0)
		ret = watch(ep, ep->irq_wake_fd, SOURCE_WAKE);
	if (ret == 0)
		ret = watch(ep, ep->intx.line_fd, SOURCE_LINE);
	if (ret == 0)
		ret = vfn_signal_init();
	if (ret == 0) {
		ret = vfn_thread_start(&ep->irq_thread, "vfn-ep-irq", pass_on, ep);
		if (ret == 0)
			return 0;
		vfn_signal_fini();
	}
	vfn_fd_replace(&ep->epoll_fd, -1);
	vfn_fd_replace(&ep->irq_wake_fd, -1);
	vfn_fd_replace(&ep->intx.line_fd, -1);
	return ret;
}

/* Nobody is attached. */
void
ep_irq_fini(struct vfn_endpoint *ep)
{
	pthread_mutex_lock(&ep->irq_lock);
	ep->quit = true;
	pthread_mutex_unlock(&ep->irq_lock);
	wake(ep);
	pthread_join(ep->irq_thread, NULL);
	vfn_signal_fini();
	vfn_fd_replace(&ep->epoll_fd, -1);
	vfn_fd_replace(&ep->irq_wake_fd, -1);
	vfn_fd_replace(&ep->intx.line_fd, -1);
}

/* ---- MSI-X ---- */

static void
table_mask(struct vfn_endpoint *ep, unsigned int vector, bool mask)
{
	ep_set(ep, VFN_REGION_BAR1,
		VFN_OFF_MSIX_TABLE + vector * EP_MSIX_ENTRY + EP_MSIX_ENTRY_CONTROL, 4, mask);
}

static bool
is_masked(struct vfn_endpoint *ep, unsigned int vector)
{
	return ep_get(ep, VFN_REGION_BAR1,
		       VFN_OFF_MSIX_TABLE + vector * EP_MSIX_ENTRY + EP_MSIX_ENTRY_CONTROL, 4) &
		1;
}

/*
 * A hypervisor keeps the table to itself, and says by eventfds which vectors are in use: as VFIO in
 * the kernel does, the table is filled for it. A client that fills it is left alone.
 */
static int
msix_fd(struct vfn_endpoint *ep, unsigned int vector, int fd)
{
	int ret;

	if (fd < 0 && ep->msix_fd[vector] < 0)
		return 0;
	ep_change(ep);
	if (fd < 0 && !ep->table_written)
		table_mask(ep, vector, true);
	ret = vfn_fd_replace(&ep->msix_fd[vector], fd);
	if (ret == 0)
		ret = ep->link->ops->set_irq(ep->link, vector, fd);
	if (ret == 0 && fd >= 0 && !ep->table_written)
		table_mask(ep, vector, false);
	return ret;
}

/* ---- operations ---- */

uint32_t
ep_irqs(void *device, unsigned int index, uint32_t *flags)
{
	const struct vfn_endpoint *ep = device;

	*flags = VFIO_IRQ_INFO_EVENTFD;
	switch (index) {
	case VFIO_PCI_INTX_IRQ_INDEX:
		*flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
		return 1;
	case VFIO_PCI_MSIX_IRQ_INDEX:
		*flags |= VFIO_IRQ_INFO_MASKABLE;
		return ep->nb_vectors;
	case VFIO_PCI_ERR_IRQ_INDEX:
	case VFIO_PCI_REQ_IRQ_INDEX:
		*flags |= VFIO_IRQ_INFO_NORESIZE;
		return 1;
	case VFN_ENDPOINT_IRQ_DOORBELL:
		/* "Maskable": that is who may set eventfds with ACTION_UNMASK. */
		*flags |= VFIO_IRQ_INFO_MASKABLE;
		return ep->nb_queues;
	}
	*flags = 0;
	return 0;
}

static int
doorbell(struct vfn_endpoint *ep, unsigned int queue, int fd)
{
	ep_change(ep);
	return ep->link->ops->set_doorbell(ep->link, queue, fd >= 0 ? fd : ep->doorbell_fd[queue]);
}

static int
intx_fd(struct vfn_endpoint *ep, int fd)
{
	int ret = vfn_fd_replace(&ep->intx.fd, fd);

	if (ret == 0)
		ret = ep->link->ops->set_irq(
			ep->link, VFN_VECTOR_INTX, fd >= 0 ? ep->intx.line_fd : -1);
	if (ret == 0 && fd >= 0)
		intx_unmask(ep);
	return ret;
}

int
ep_irq_fd(void *device, unsigned int index, unsigned int irq, int fd)
{
	struct vfn_endpoint *ep = device;
	int ret = -EINVAL;

	if (fd >= 0 && !vfn_is_event(fd))
		return -EINVAL;
	if (index == VFIO_PCI_MSIX_IRQ_INDEX)
		return msix_fd(ep, irq, fd);
	if (index == VFN_ENDPOINT_IRQ_DOORBELL)
		return fd >= 0 ? -EINVAL : doorbell(ep, irq, -1);
	ep_change(ep);
	pthread_mutex_lock(&ep->irq_lock);
	if (index == VFIO_PCI_INTX_IRQ_INDEX)
		ret = intx_fd(ep, fd);
	else if (index == VFIO_PCI_ERR_IRQ_INDEX)
		ret = vfn_fd_replace(&ep->err_fd, fd);
	else if (index == VFIO_PCI_REQ_IRQ_INDEX)
		ret = vfn_fd_replace(&ep->req_fd, fd);
	pthread_mutex_unlock(&ep->irq_lock);
	/* It may have to look for errors from now on. */
	wake(ep);
	return ret;
}

int
ep_irq_mask(void *device, unsigned int index, unsigned int irq, bool mask)
{
	struct vfn_endpoint *ep = device;

	if (index == VFN_ENDPOINT_IRQ_DOORBELL) {
		ep_change(ep);
		return ep->link->ops->set_doorbell(ep->link, irq, mask ? ep->doorbell_fd[irq] : -1);
	}
	if (index != VFIO_PCI_INTX_IRQ_INDEX && index != VFIO_PCI_MSIX_IRQ_INDEX)
		return -ENOTSUP;
	if (index == VFIO_PCI_MSIX_IRQ_INDEX) {
		ep_change(ep);
		table_mask(ep, irq, mask);
		return 0;
	}
	ep_count(&ep->accesses);
	pthread_mutex_lock(&ep->irq_lock);
	if (mask)
		ep->intx.masked = true;
	else
		intx_unmask(ep);
	pthread_mutex_unlock(&ep->irq_lock);
	return 0;
}

int
ep_irq_unmask_fd(void *device, unsigned int index, unsigned int irq, int fd)
{
	struct vfn_endpoint *ep = device;
	int ret;

	/* Shared memory for a doorbell says that nobody will ring: the queue is polled. */
	if (fd >= 0 && !vfn_is_event(fd) &&
		(index != VFN_ENDPOINT_IRQ_DOORBELL || fcntl(fd, F_GET_SEALS) < 0))
		return -EINVAL;
	if (index == VFN_ENDPOINT_IRQ_DOORBELL)
		return doorbell(ep, irq, fd);
	if (index != VFIO_PCI_INTX_IRQ_INDEX)
		return fd < 0 ? 0 : -ENOTSUP;
	ep_count(&ep->accesses);
	pthread_mutex_lock(&ep->irq_lock);
	ret = intx_unmask_fd(ep, fd);
	pthread_mutex_unlock(&ep->irq_lock);
	return ret;
}

int
ep_irq_trigger(void *device, unsigned int index, unsigned int irq)
{
	struct vfn_endpoint *ep = device;
	int ret = 0;

	if (index == VFN_ENDPOINT_IRQ_DOORBELL)
		return -EINVAL;
	ep_change(ep);
	pthread_mutex_lock(&ep->irq_lock);
	if (index == VFIO_PCI_MSIX_IRQ_INDEX && ep->msix_fd[irq] >= 0)
		vfn_signal(ep->msix_fd[irq]);
	else if (index == VFIO_PCI_INTX_IRQ_INDEX && ep->intx.fd >= 0)
		intx_raise(ep);
	else if (index == VFIO_PCI_ERR_IRQ_INDEX && ep->err_fd >= 0)
		vfn_signal(ep->err_fd);
	else if (index == VFIO_PCI_REQ_IRQ_INDEX && ep->req_fd >= 0)
		vfn_signal(ep->req_fd);
	pthread_mutex_unlock(&ep->irq_lock);
	return ret;
}

/* Only while pollers may sleep something has to ring; up to as many as a message takes. */
int
ep_ioeventfds(void *device, unsigned int index, struct vfu_ioeventfd *fds)
{
	const struct vfn_endpoint *ep = device;
	unsigned int i;

	if (index != VFN_REGION_BAR2)
		return 0;
	for (i = 0; i < ep->nb_queues && i < VFU_MAX_FDS && ep->doorbell_fd[i] >= 0; i++)
		fds[i] = (struct vfu_ioeventfd){
			.offset = i * VFN_NOTIFY_STEP, .size = 0, .fd = ep->doorbell_fd[i]};
	return i;
}

/* ---- clients ---- */

/* Pollers that may sleep do so only if they can wait for every doorbell. */
int
ep_irq_attach(struct vfn_endpoint *ep)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < ep->nb_queues && !ep->busy && ret == 0; i++) {
		ep->doorbell_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ret = ep->doorbell_fd[i] < 0 ?
			-errno :
			ep->link->ops->set_doorbell(ep->link, i, ep->doorbell_fd[i]);
	}
	return ret;
}

/* The function is reset. */
void
ep_irq_detach(struct vfn_endpoint *ep)
{
	const struct vfn_link_ops *ops = ep->link->ops;
	unsigned int i;

	for (i = 0; i < ep->nb_vectors; i++) {
		ops->set_irq(ep->link, i, -1);
		vfn_fd_replace(&ep->msix_fd[i], -1);
	}
	for (i = 0; i < ep->nb_queues; i++) {
		ops->set_doorbell(ep->link, i, -1);
		vfn_fd_replace(&ep->doorbell_fd[i], -1);
	}
	pthread_mutex_lock(&ep->irq_lock);
	ops->set_irq(ep->link, VFN_VECTOR_INTX, -1);
	intx_unmask_fd(ep, -1);
	vfn_fd_replace(&ep->intx.fd, -1);
	vfn_fd_replace(&ep->err_fd, -1);
	vfn_fd_replace(&ep->req_fd, -1);
	ep->intx.masked = ep->broken = false;
	pthread_mutex_unlock(&ep->irq_lock);
}

/* Every vector is masked, and the capability off. The function's own reset has cleared the rest. */
static void
msix_reset(struct vfn_endpoint *ep)
{
	uint8_t table[VFN_MAX_VECTORS * EP_MSIX_ENTRY] = {0};
	unsigned int i;

	for (i = 0; i < ep->nb_vectors; i++)
		table[i * EP_MSIX_ENTRY + EP_MSIX_ENTRY_CONTROL] = 1;
	ep->link->ops->write(ep->link, VFN_REGION_BAR1, VFN_OFF_MSIX_TABLE, table,
		ep->nb_vectors * EP_MSIX_ENTRY);
	ep_set(ep, VFN_REGION_CONFIG, ep->msix + EP_MSIX_CONTROL, 2, 0);
}

void
ep_irq_reset(struct vfn_endpoint *ep)
{
	if (ep->msix != 0)
		msix_reset(ep);
	pthread_mutex_lock(&ep->irq_lock);
	ep->intx.masked = false;
	pthread_mutex_unlock(&ep->irq_lock);
}

void
ep_irq_remind(struct vfn_endpoint *ep)
{
	uint32_t control = 0;
	unsigned int i;

	if (ep->msix != 0)
		control = ep_get(ep, VFN_REGION_CONFIG, ep->msix + EP_MSIX_CONTROL, 2);
	for (i = 0; i < ep->nb_vectors; i++)
		if ((control & (EP_MSIX_ON | EP_MSIX_MASKED)) == EP_MSIX_ON &&
			ep->msix_fd[i] >= 0 && !is_masked(ep, i))
			vfn_signal(ep->msix_fd[i]);
	pthread_mutex_lock(&ep->irq_lock);
	intx_look(ep);
	pthread_mutex_unlock(&ep->irq_lock);
}

/* Any thread. */
int
vfn_endpoint_ask_removal(struct vfn_endpoint *ep)
{
	int ret = -ENOTCONN;

	pthread_mutex_lock(&ep->irq_lock);
	if (__atomic_load_n(&ep->client, __ATOMIC_RELAXED) != 0)
		ret = ep->req_fd < 0 ? -ENOTSUP : 0;
	if (ret == 0)
		vfn_signal(ep->req_fd);
	pthread_mutex_unlock(&ep->irq_lock);
	return ret;
}
