/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The far end of a link over a non-transparent bridge: a function whose driver sends messages. This
 * is the server's thread and what it waits for; ntb_msg.c carries messages out, polled.c looks at
 * what is written without one.
 *
 * What a driver does not do in time it never does: it is hung up on, the function is reset, and
 * another one is waited for.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include <rte_common.h>

#include <vfn_link.h>

#include "../thread.h"
#include "ntb.h"

RTE_LOG_REGISTER(vfn_ntb_logtype, pmd.vdpa.vfn.ntb, NOTICE);

/* A doorbell can get lost: what it was for is looked at all the same. */
#define TICK_MS 100
/* How many messages before interrupts have their turn. */
#define BURST 64

#define PCI_CAP_POINTER 0x34
#define PCI_CAP_ID_MSIX 0x11

/* In place of vectors, of epoll. */
enum { EV_STOP = VFN_MAX_VECTORS + 1, EV_LINK, EV_DOORBELL, EV_IRQ };

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

/* ---- registers ---- */

uint32_t
ns_get(struct vfn_ntb_server *s, unsigned int region, uint64_t offset, size_t len)
{
	uint32_t v = 0;

	return s->link->ops->read(s->link, region, offset, &v, len) == 0 ? v : 0;
}

int
ns_set(struct vfn_ntb_server *s, unsigned int region, uint64_t offset, size_t len, uint32_t v)
{
	return s->link->ops->write(s->link, region, offset, &v, len);
}

void
ns_learn_sizes(struct vfn_ntb_server *s)
{
	unsigned int i;

	s->nb_queues = ns_get(s, NS_COMMON(num_queues));
	for (i = 0; i < s->nb_queues; i++) {
		ns_set(s, NS_COMMON(queue_select), i);
		s->max_size[i] = ns_get(s, NS_COMMON(queue_size));
	}
	ns_set(s, NS_COMMON(queue_select), 0);
}

void
ns_notify(struct vfn_ntb_server *s, unsigned int queue, uint32_t value, size_t len)
{
	if (queue >= s->nb_queues || (len != 2 && len != 4)) {
		ns_count(&s->info.refused);
		return;
	}
	ns_count(&s->info.notified);
	if (s->doorbell_fd[queue] >= 0)
		eventfd_write(s->doorbell_fd[queue], 1);
	else
		ns_set(s, VFN_REGION_BAR2, (uint64_t)queue * VFN_NOTIFY_STEP, len, value);
}

/* ---- eventfds ---- */

static int
watch(struct vfn_ntb_server *s, int fd, uint32_t what)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = what};
	int epoll_fd = what < RTE_DIM(s->irq_fd) ? s->irq_epoll_fd : s->epoll_fd;

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* Have what signals the function, or is signalled by it, for as long as that has a duplicate. */
static int
change_fd(struct vfn_ntb_server *s, int *fd, bool on, unsigned int number,
	int (*set)(struct vfn_link *link, unsigned int number, int fd))
{
	int new = -1, ret;

	if (on) {
		new = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (new < 0)
			return -errno;
	}
	ret = set(s->link, number, new);
	if (ret < 0) {
		if (new >= 0)
			close(new);
		return ret;
	}
	if (*fd >= 0)
		close(*fd);
	*fd = new;
	return 0;
}

int
ns_irq(struct vfn_ntb_server *s, unsigned int vector, bool on)
{
	int ret = change_fd(s, &s->irq_fd[vector], on, vector, s->link->ops->set_irq);

	if (ret == 0 && on)
		ret = watch(s, s->irq_fd[vector], vector);
	if (ret == 0)
		s->pending[vector] = false;
	return ret;
}

int
ns_doorbell(struct vfn_ntb_server *s, unsigned int queue, bool on)
{
	return queue < s->nb_queues ?
		change_fd(s, &s->doorbell_fd[queue], on, queue, s->link->ops->set_doorbell) :
		-EINVAL;
}

/* ---- what is sent ---- */

static void
hang_up(struct vfn_ntb_server *s, const char *why)
{
	NTB_LOG(WARNING, s, "hangs up on its driver: %s", why);
	ntb_link_disable(s->ntb);
}

static void
make_event(struct vfn_ntb_server *s, unsigned int vector, union vfn_message *msg)
{
	if (s->vectors || vector == VFN_VECTOR_INTX) {
		vfn_msg_init(msg, VFN_MSG_BUS, VFN_MSG_BUS_EVENT_VECTOR, 0);
		msg->number.number = vector;
		msg->number.on = 1;
	} else if (vector == 0) {
		vfn_msg_init(msg, 0, VFN_MSG_EVENT_CONFIG, 0);
		msg->event_config.status = ns_get(s, NS_COMMON(device_status));
		msg->event_config.generation = ns_get(s, NS_COMMON(config_generation));
	} else {
		vfn_msg_init(msg, 0, VFN_MSG_EVENT_USED, 0);
		msg->index.index = vector - 1;
	}
}

/* They wait for room, and one stands for all that came meanwhile. */
static void
send_events(struct vfn_ntb_server *s)
{
	struct epoll_event ev[16];
	union vfn_message msg;
	eventfd_t count;
	unsigned int i;
	int ret = 0, n = epoll_wait(s->irq_epoll_fd, ev, RTE_DIM(ev), 0);

	while (n-- > 0)
		if (eventfd_read(s->irq_fd[ev[n].data.u32], &count) == 0)
			s->pending[ev[n].data.u32] = true;

	for (i = 0; i < RTE_DIM(s->pending) && ret == 0; i++) {
		if (!s->pending[i])
			continue;
		make_event(s, i, &msg);
		ret = ntb_mailbox_send(&s->box, &msg, msg.header.msg_size);
		s->pending[i] = ret != 0;
	}
	if (ret == -EPROTO)
		hang_up(s, "it takes what was not sent");
}

/* A driver that takes no answers gets no more. What was raised before comes before, as on a bus. */
static void
answer(struct vfn_ntb_server *s, const union vfn_message *msg)
{
	uint64_t end = now_ns() + NTB_ANSWER_MS * UINT64_C(1000000);
	int ret;

	send_events(s);
	while ((ret = ntb_mailbox_send(&s->box, msg, msg->header.msg_size)) == -EAGAIN &&
		now_ns() < end && ntb_link_up(s->ntb))
		usleep(50);
	if (ret < 0)
		hang_up(s, "it takes no answers");
}

/* ---- what comes ---- */

/* True: there may be more. */
static bool
receive(struct vfn_ntb_server *s)
{
	union vfn_message msg, reply;
	unsigned int i;
	const char *why;
	ssize_t len;

	for (i = 0; i < BURST; i++) {
		memset(&msg, 0, sizeof(msg));
		len = ntb_mailbox_receive(&s->box, &msg);
		if (len == -EPROTO)
			hang_up(s, "a message was lost");
		if (len < 0)
			return false;
		ns_count(&s->info.messages);
		why = vfn_msg_wrong(&msg, len, true);
		if (why != NULL) {
			ns_count(&s->info.refused);
			NTB_LOG(NOTICE, s, "message 0x%02x (type 0x%02x) is no good: %s",
				msg.header.msg_id, msg.header.type, why);
		} else if (ns_handle(s, &msg, &reply)) {
			answer(s, &reply);
		}
	}
	return true;
}

/* ---- life of a driver ---- */

static void
reset(struct vfn_ntb_server *s)
{
	uint64_t end = now_ns() + NTB_ANSWER_MS * UINT64_C(1000000);

	ns_set(s, NS_COMMON(device_status), 0);
	while (ns_get(s, NS_COMMON(device_status)) != 0) {
		if (now_ns() > end) {
			NTB_LOG(ERR, s, "the function does not end its reset");
			return;
		}
		usleep(10);
	}
}

/* As after power-on, and nothing of the windows is touched any more. */
static void
let_go(struct vfn_ntb_server *s)
{
	static const uint8_t nothing[VFN_PARTS_SIZE];
	const struct vfn_link_ops *ops = s->link->ops;
	const uint64_t vendor = VFN_OFF_VENDOR;
	unsigned int i;

	reset(s);
	for (i = 0; i < RTE_DIM(s->irq_fd); i++)
		if (s->irq_fd[i] >= 0)
			ns_irq(s, i, false);
	for (i = 0; i < s->nb_queues; i++)
		ns_doorbell(s, i, false);
	if (ops->dma_unmap(s->link, VFN_DMA_GUEST, 0, 0) < 0)
		NTB_LOG(ERR, s, "the function does not let go of its driver's memory");
	/* What a reset of the virtio device leaves alone. */
	ns_set(s, VFN_REGION_CONFIG, 0x04, 2, 0);
	if (s->msix != 0)
		ns_set(s, VFN_REGION_CONFIG, s->msix + 2, 2, 0);
	ops->write(s->link, VFN_REGION_BAR0, VFN_OFF_PARTS, nothing, sizeof(nothing));
	ns_set(s, VFN_REGION_BAR0, vendor + offsetof(struct vfn_vendor_cfg, parts_len), 4, 0);
	if (s->offer != NULL)
		s->offer(s->fn, NULL, NULL);
	ns_learn_sizes(s);
}

static void
link_changed(struct vfn_ntb_server *s)
{
	bool up = ntb_link_up(s->ntb);
	eventfd_t count;
	int ret;

	eventfd_read(s->ntb->link_fd, &count);
	if (s->linked && !up) {
		if (s->ready) {
			NTB_LOG(INFO, s, "its driver is gone");
			let_go(s);
		}
		s->linked = s->ready = false;
		__atomic_store_n(&s->info.driver, false, __ATOMIC_RELAXED);
	}
	if (!up) {
		ret = ntb_link_enable(s->ntb);
		if (ret < 0 && ret != -EALREADY)
			NTB_LOG(ERR, s, "cannot look for a driver: %s", strerror(-ret));
		return;
	}
	if (s->linked)
		return;
	s->linked = true;
	s->deadline_ns = now_ns() + NTB_ANSWER_MS * UINT64_C(1000000);
	ntb_mailbox_init(&s->box, s->ntb, VFN_NTB_MAILBOX_AT, VFN_NTB_BELL_MESSAGE);
	memset(s->seen, 0, sizeof(s->seen));
	memset(s->pending, 0, sizeof(s->pending));
	s->vectors = s->has_vectors = false;
	vfn_ntb_say(s->ntb, VFN_NTB_DEVICE | (s->offer != NULL ? VFN_NTB_CONTROL : 0));
}

/* Who is at the other side? */
static void
greet(struct vfn_ntb_server *s)
{
	uint32_t role;
	char why[160];

	switch (vfn_ntb_hear(s->ntb, VFN_NTB_DRIVER, &role, why, sizeof(why))) {
	case VFN_NTB_SILENT:
		if (now_ns() > s->deadline_ns)
			hang_up(s, "it says nothing");
		return;
	case VFN_NTB_WRONG:
		hang_up(s, why);
		return;
	case VFN_NTB_READY:
		s->ready = true;
		ns_count(&s->info.drivers);
		__atomic_store_n(&s->info.driver, true, __ATOMIC_RELAXED);
		NTB_LOG(INFO, s, "a driver has the device");
	}
}

static void *
serve(void *arg)
{
	struct vfn_ntb_server *s = arg;
	struct epoll_event ev[4];
	int timeout = 0, n;

	for (;;) {
		n = epoll_wait(s->epoll_fd, ev, RTE_DIM(ev), timeout);
		while (n-- > 0)
			if (ev[n].data.u32 == EV_STOP)
				return NULL;
		link_changed(s);
		timeout = s->linked ? TICK_MS : 1000;
		if (!s->linked)
			continue;
		ntb_clear(s->ntb,
			UINT32_C(1) << VFN_NTB_BELL_MESSAGE | UINT32_C(1) << VFN_NTB_BELL_NOTIFY);
		if (!s->ready)
			greet(s);
		if (!s->ready)
			continue;
		if (receive(s))
			timeout = 0;
		ns_poll_notify(s);
		send_events(s);
	}
}

/* ---- the server ---- */

static int
look(struct vfn_ntb_server *s)
{
	unsigned int at = ns_get(s, VFN_REGION_CONFIG, PCI_CAP_POINTER, 1), cap;

	for (cap = 0; at != 0 && cap < 48; cap++, at = ns_get(s, VFN_REGION_CONFIG, at + 1, 1))
		if (ns_get(s, VFN_REGION_CONFIG, at, 1) == PCI_CAP_ID_MSIX)
			s->msix = at;
	if (ns_get(s, NS_COMMON(num_queues)) - 1 >= VFN_MAX_QUEUES ||
		ns_get(s, VFN_REGION_BAR0,
			VFN_OFF_VENDOR + offsetof(struct vfn_vendor_cfg, version),
			4) != VFN_VENDOR_VERSION)
		return -ENODEV;
	ns_learn_sizes(s);
	return 0;
}

static void
server_free(struct vfn_ntb_server *s)
{
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	if (s->irq_epoll_fd >= 0)
		close(s->irq_epoll_fd);
	free(s);
}

int
vfn_ntb_serve(struct vfn_link *link, struct vfn_function *fn,
	const struct vfn_ntb_server_params *params, struct vfn_ntb_server **server)
{
	struct vfn_ntb_server *s = calloc(1, sizeof(*s));
	char thread[16];
	int ret;

	if (s == NULL)
		return -ENOMEM;
	s->link = link;
	s->fn = fn;
	s->offer = params->offer;
	s->ntb = params->ntb;
	s->io = (struct vringh_io){.invalidate = ntb_invalidate, .flush = ntb_flush, .arg = s->ntb};
	snprintf(s->name, sizeof(s->name), "%s", params->name);
	memset(s->irq_fd, -1, sizeof(s->irq_fd));
	memset(s->doorbell_fd, -1, sizeof(s->doorbell_fd));
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->irq_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	ret = s->stop_fd < 0 || s->epoll_fd < 0 || s->irq_epoll_fd < 0 ? -EMFILE : look(s);
	if (ret == 0)
		ret = watch(s, s->stop_fd, EV_STOP);
	if (ret == 0)
		ret = watch(s, s->ntb->link_fd, EV_LINK);
	if (ret == 0)
		ret = watch(s, s->ntb->doorbell_fd, EV_DOORBELL);
	if (ret == 0)
		ret = watch(s, s->irq_epoll_fd, EV_IRQ);
	snprintf(thread, sizeof(thread), "vfn-ntb-%.7s", params->name);
	if (ret == 0)
		ret = vfn_thread_start(&s->thread, thread, serve, s);
	if (ret < 0) {
		server_free(s);
		return ret;
	}
	*server = s;
	return 0;
}

void
vfn_ntb_server_close(struct vfn_ntb_server *s)
{
	if (s == NULL)
		return;
	eventfd_write(s->stop_fd, 1);
	pthread_join(s->thread, NULL);
	ntb_link_disable(s->ntb);
	let_go(s);
	server_free(s);
}

void
vfn_ntb_server_info(struct vfn_ntb_server *s, struct vfn_ntb_info *info)
{
#define NOW(field) .field = __atomic_load_n(&s->info.field, __ATOMIC_RELAXED)
	*info = (struct vfn_ntb_info){
		NOW(driver), NOW(drivers), NOW(messages), NOW(refused), NOW(notified)};
#undef NOW
}
