/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The link over a bridge: its life, memory, eventfds. Any thread. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <vfn_signal.h>

#include "vfn_ntb_private.h"

/* Scratchpads ring no doorbell that could not get lost. */
#define TICK_MS 10

/* ---- calls of the bus ---- */

/* With its own part filled in by whoever calls: but the header. */
static int
bus_call(struct ntb_link *e, uint8_t id, union vfn_message *m)
{
	union vfn_message whole;
	int ret;

	pthread_mutex_lock(&e->call);
	if (++e->token == 0)
		e->token = 1;
	vfn_msg_init(&whole, VFN_MSG_BUS, id, e->token);
	m->header = whole.header;
	ret = ntb_link_call(e, m);
	pthread_mutex_unlock(&e->call);
	return ret < 0 ? ret : m->result.error;
}

/* ---- memory ---- */

static int
link_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct ntb_link *e = ntb_link_of(link);
	const struct ntb_window *w = map->writable ? &e->ntb->in : &e->ntb->out;
	union vfn_message m = {0};

	if (map->len == 0 || map->iova + (map->len - 1) < map->iova)
		return -EINVAL;
	/* Nothing else is reached from there. */
	if (map->space != VFN_DMA_GUEST || map->readable == map->writable || map->host == NULL ||
		!ntb_bus(w, map->host, map->len, &m.dma.bus))
		return -ENOTSUP;
	m.dma.space = map->space;
	m.dma.flags = map->writable ? VFN_MSG_DMA_WRITE : VFN_MSG_DMA_READ;
	m.dma.iova = map->iova;
	m.dma.len = map->len;
	return bus_call(e, VFN_MSG_BUS_DMA_MAP, &m);
}

static int
link_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	union vfn_message m = {.dma = {.space = space, .iova = iova, .len = len}};

	return bus_call(ntb_link_of(link), VFN_MSG_BUS_DMA_UNMAP, &m);
}

/* Both are there for as long as the link is up, and do not change. */
static int
link_get_windows(struct vfn_link *link, struct vfn_windows *windows)
{
	struct ntb_link *e = ntb_link_of(link);
	uint64_t out = __atomic_load_n(&e->ntb->out.size, __ATOMIC_ACQUIRE);

	if (!ntb_link_up(e->ntb) || out == 0)
		return -ENODEV;
	if (out <= VFN_NTB_AREA_SIZE || e->ntb->in.size <= VFN_NTB_AREA_SIZE)
		return -ENOSPC;
	*windows = (struct vfn_windows){.io = &e->io};
	windows->out.host = e->ntb->out.host + VFN_NTB_AREA_SIZE;
	windows->out.iova = e->ntb->out.bus + VFN_NTB_AREA_SIZE;
	windows->out.len = out - VFN_NTB_AREA_SIZE;
	windows->in.host = e->ntb->in.host + VFN_NTB_AREA_SIZE;
	windows->in.iova = e->ntb->in.bus + VFN_NTB_AREA_SIZE;
	windows->in.len = e->ntb->in.size - VFN_NTB_AREA_SIZE;
	return 0;
}

/* ---- eventfds ---- */

/* A duplicate in place of what was there, which is closed; -1 for none. */
static int
replace(struct ntb_link *e, int *have, int fd)
{
	int new = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;

	if (fd >= 0 && new < 0)
		return -errno;
	pthread_mutex_lock(&e->lock);
	if (*have >= 0)
		close(*have);
	*have = new;
	pthread_mutex_unlock(&e->lock);
	return 0;
}

static int
link_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	struct ntb_link *e = ntb_link_of(link);
	union vfn_message m = {.number = {vector, fd >= 0}};
	int ret;

	if (vector > VFN_VECTOR_INTX)
		return -EINVAL;
	/* In this order nothing is signalled that is not there, and none after. */
	ret = fd >= 0 ? replace(e, &e->irq_fd[vector], fd) : 0;
	if (ret == 0)
		ret = bus_call(e, VFN_MSG_BUS_SET_IRQ, &m);
	if (fd < 0 || ret < 0)
		replace(e, &e->irq_fd[vector], -1);
	return ret;
}

/*
 * The other side rings the queue when it is notified; the thread does that for the eventfd. Not
 * set: nobody rings.
 */
static int
link_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	struct ntb_link *e = ntb_link_of(link);
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = queue};
	union vfn_message m = {.number = {queue, fd >= 0}};
	int ret;

	if (queue >= VFN_MAX_QUEUES)
		return -EINVAL;
	if (e->kick_fd[queue] >= 0)
		epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, e->kick_fd[queue], NULL);
	ret = replace(e, &e->kick_fd[queue], fd);
	if (ret == 0)
		ret = bus_call(e, VFN_MSG_BUS_SET_DOORBELL, &m);
	if (ret == 0 && fd >= 0 &&
		epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->kick_fd[queue], &ev) < 0)
		ret = -errno;
	return ret;
}

static int
link_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	(void)link;
	(void)region;
	(void)fd;
	(void)size;
	return -ENOTSUP;
}

/* ---- a connection ---- */

/* It has no thread. */
static void
link_free(struct ntb_link *e)
{
	close(e->epoll_fd);
	close(e->stop_fd);
	close(e->dead_fd);
	pthread_cond_destroy(&e->answered);
	pthread_mutex_destroy(&e->lock);
	pthread_mutex_destroy(&e->call);
	free(e);
}

static void
link_close(struct vfn_link *link)
{
	struct ntb_link *e = ntb_link_of(link);
	unsigned int i;

	ntb_link_fail(e);
	eventfd_write(e->stop_fd, 1);
	pthread_join(e->thread, NULL);
	vfn_signal_fini();
	for (i = 0; i < sizeof(e->irq_fd) / sizeof(e->irq_fd[0]); i++)
		if (e->irq_fd[i] >= 0)
			close(e->irq_fd[i]);
	for (i = 0; i < VFN_MAX_QUEUES; i++)
		if (e->kick_fd[i] >= 0)
			close(e->kick_fd[i]);
	ntb_close(e->ntb);
	link_free(e);
}

static uint64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000) + now.tv_nsec / 1000000;
}

/* Until the peer has said what it is. */
static int
greet(struct ntb *ntb, unsigned int timeout_ms, uint32_t *role, char *why, size_t size)
{
	struct pollfd p[] = {{ntb->link_fd, POLLIN, 0}, {ntb->doorbell_fd, POLLIN, 0}};
	const uint64_t end = now_ms() + timeout_ms;
	enum vfn_ntb_heard heard = VFN_NTB_SILENT;
	const char *reason = "nobody is at the other side";
	bool said = false;
	eventfd_t count;
	int ret;

	do {
		/* One that left at once may have been for another. */
		ret = ntb_link_enable(ntb);
		if (ret < 0 && ret != -EALREADY) {
			snprintf(why, size, "cannot look for the peer: %s", strerror(-ret));
			return ret;
		}
		said = said && ret != 0;
		poll(p, 2, TICK_MS);
		eventfd_read(ntb->link_fd, &count);
		ntb_clear(ntb, UINT32_C(1) << VFN_NTB_BELL_MESSAGE);
		if (!ntb_link_up(ntb))
			continue;
		if (!said)
			vfn_ntb_say(ntb, VFN_NTB_DRIVER);
		said = true;
		reason = "the other side says nothing";
		heard = vfn_ntb_hear(ntb, VFN_NTB_DEVICE, role, why, size);
	} while (heard == VFN_NTB_SILENT && now_ms() < end);
	if (heard == VFN_NTB_SILENT)
		snprintf(why, size, "%s", reason);
	return heard == VFN_NTB_READY ? 0 : heard == VFN_NTB_WRONG ? -ENODEV : -ETIMEDOUT;
}

static int
take_control(struct ntb_link *e, const struct vfn_endpoint_control *c, char *why, size_t size)
{
	union vfn_message m = {
		.control = {.features = c->features, .mtu = c->mtu, .max_pairs = c->max_pairs}};
	int ret;

	memcpy(m.control.mac, c->mac, sizeof(c->mac));
	ret = bus_call(e, VFN_MSG_BUS_SET_CONTROL, &m);
	if (ret < 0)
		snprintf(why, size, "it does not take MAC, MTU, queues and features: %s",
			strerror(-ret));
	return ret;
}

static int
watch(struct ntb_link *e, int fd, uint32_t what)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = what};

	return fd < 0 || epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int
start(struct ntb_link *e)
{
	sigset_t all, old;
	int ret = watch(e, e->stop_fd, NTB_LINK_EV_STOP);

	if (ret == 0)
		ret = watch(e, e->ntb->link_fd, NTB_LINK_EV_LINK);
	if (ret == 0)
		ret = watch(e, e->ntb->doorbell_fd, NTB_LINK_EV_DOORBELL);
	if (ret == 0)
		ret = e->dead_fd < 0 ? -EMFILE : vfn_signal_init();
	if (ret < 0)
		return ret;
	/* It handles no signal but those of its own doing. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&e->thread, NULL, ntb_link_thread, e);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret < 0)
		vfn_signal_fini();
	else
		pthread_setname_np(e->thread, "vfn-ntb-link");
	return ret;
}

static struct ntb_link *
link_new(struct ntb *ntb, unsigned int timeout_ms)
{
	static const struct vfn_link_ops ops = {
		.read = ntb_link_read,
		.write = ntb_link_write,
		.dma_map = link_dma_map,
		.dma_unmap = link_dma_unmap,
		.set_irq = link_set_irq,
		.set_doorbell = link_set_doorbell,
		.get_region_fd = link_get_region_fd,
		.get_windows = link_get_windows,
		.close = link_close,
	};
	struct ntb_link *e = calloc(1, sizeof(*e));
	pthread_condattr_t attr;

	if (e == NULL)
		return NULL;
	e->link.ops = &ops;
	e->ntb = ntb;
	e->io = (struct vringh_io){.invalidate = ntb_invalidate, .flush = ntb_flush, .arg = ntb};
	e->timeout_ms = timeout_ms;
	memset(e->irq_fd, -1, sizeof(e->irq_fd));
	memset(e->kick_fd, -1, sizeof(e->kick_fd));
	pthread_mutex_init(&e->call, NULL);
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->answered, &attr);
	pthread_condattr_destroy(&attr);
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	e->stop_fd = eventfd(0, EFD_CLOEXEC);
	e->dead_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ntb_mailbox_init(&e->sender, ntb, VFN_NTB_MAILBOX_AT, VFN_NTB_BELL_MESSAGE);
	ntb_mailbox_init(&e->receiver, ntb, VFN_NTB_MAILBOX_AT, VFN_NTB_BELL_MESSAGE);
	return e;
}

int
vfn_ntb_connect(struct ntb *ntb, const struct vfn_endpoint_control *control, unsigned int meet_ms,
	unsigned int timeout_ms, char *why, size_t size, struct vfn_link **link)
{
	struct ntb_link *e;
	uint32_t role = 0;
	int ret = greet(ntb, meet_ms, &role, why, size);

	if (ret == 0 && control != NULL && !(role & VFN_NTB_CONTROL)) {
		snprintf(why, size,
			"it does not leave MAC, MTU, queues and features to its driver: it is not "
			"control=host there");
		ret = -ENODEV;
	}
	if (ret < 0) {
		ntb_close(ntb);
		return ret;
	}
	e = link_new(ntb, timeout_ms);
	ret = e != NULL ? start(e) : -ENOMEM;
	if (ret < 0) {
		snprintf(why, size, "%s", strerror(-ret));
		if (e != NULL)
			link_free(e);
		ntb_close(ntb);
		return ret;
	}
	if (control != NULL)
		ret = take_control(e, control, why, size);
	if (ret < 0) {
		link_close(&e->link);
		return ret;
	}
	*link = &e->link;
	return 0;
}

struct ntb *
vfn_ntb_bridge(const struct vfn_link *link)
{
	return ntb_link_of(link)->ntb;
}

int
vfn_ntb_fd(const struct vfn_link *link)
{
	return ntb_link_of(link)->dead_fd;
}

void
vfn_ntb_hang_up(struct vfn_link *link)
{
	ntb_link_fail(ntb_link_of(link));
}
