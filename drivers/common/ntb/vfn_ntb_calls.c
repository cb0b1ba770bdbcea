/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Messages of the link over a bridge, and its thread: what comes, events and answers, and
 * eventfds of queues, which become notifications.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <vfn_signal.h>

#include "vfn_ntb_private.h"

/* A doorbell can get lost: what it was for is looked at all the same. */
#define TICK_MS 100

void
ntb_link_fail(struct ntb_link *e)
{
	if (__atomic_exchange_n(&e->dead, true, __ATOMIC_ACQ_REL))
		return;
	ntb_link_disable(e->ntb);
	eventfd_write(e->dead_fd, 1);
	pthread_mutex_lock(&e->lock);
	pthread_cond_broadcast(&e->answered);
	pthread_mutex_unlock(&e->lock);
}

static bool
is_dead(const struct ntb_link *e)
{
	return __atomic_load_n(&e->dead, __ATOMIC_ACQUIRE);
}

static struct timespec
from_now(unsigned int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static bool
is_past(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > t->tv_sec || (now.tv_sec == t->tv_sec && now.tv_nsec > t->tv_nsec);
}

int
ntb_link_post(struct ntb_link *e, union vfn_message *msg)
{
	const struct timespec end = from_now(e->timeout_ms);
	int ret;

	while (!is_dead(e)) {
		ret = ntb_mailbox_send(&e->sender, msg, msg->header.msg_size);
		if (ret == 0)
			return 0;
		if (ret != -EAGAIN || is_past(&end))
			ntb_link_fail(e);
		else
			usleep(20);
	}
	return -ENODEV;
}

int
ntb_link_call(struct ntb_link *e, union vfn_message *msg)
{
	const struct timespec end = from_now(e->timeout_ms);
	int ret;

	pthread_mutex_lock(&e->lock);
	e->wanted = msg->header.token;
	e->answer = msg;
	pthread_mutex_unlock(&e->lock);
	ret = ntb_link_post(e, msg);
	pthread_mutex_lock(&e->lock);
	while (ret == 0 && e->wanted != 0 && !is_dead(e) && ret != ETIMEDOUT)
		ret = pthread_cond_timedwait(&e->answered, &e->lock, &end);
	ret = e->wanted == 0 ? 0 : -ENODEV;
	e->wanted = 0;
	e->answer = NULL;
	pthread_mutex_unlock(&e->lock);
	if (ret < 0)
		ntb_link_fail(e);
	return ret;
}

void
ntb_link_notify(struct ntb_link *e, unsigned int queue, uint32_t value, size_t len)
{
	uint64_t *at = (uint64_t *)(e->ntb->out.host + VFN_NTB_NOTIFY_AT) + queue;
	union {
		struct vfn_ntb_notify notify;
		uint64_t word;
	} n;

	pthread_mutex_lock(&e->lock);
	n.notify = (struct vfn_ntb_notify){++e->kicks[queue], len, value};
	__atomic_store_n(at, n.word, __ATOMIC_RELAXED);
	ntb_flush(e->ntb, at, sizeof(*at));
	pthread_mutex_unlock(&e->lock);
	ntb_ring(e->ntb, UINT32_C(1) << VFN_NTB_BELL_NOTIFY);
}

/* ---- the thread ---- */

static void
got_event(struct ntb_link *e, const union vfn_message *m)
{
	unsigned int vector = m->number.number;

	if (!(m->header.type & VFN_MSG_BUS) || m->header.msg_id != VFN_MSG_BUS_EVENT_VECTOR ||
		vector > VFN_VECTOR_INTX)
		return;
	pthread_mutex_lock(&e->lock);
	/* One that is full for good is the guest's business. */
	if (e->irq_fd[vector] >= 0 && !vfn_signal(e->irq_fd[vector])) {
		close(e->irq_fd[vector]);
		e->irq_fd[vector] = -1;
	}
	pthread_mutex_unlock(&e->lock);
}

/* One that nobody waits for any more is dropped. */
static void
got_answer(struct ntb_link *e, const union vfn_message *m)
{
	pthread_mutex_lock(&e->lock);
	if (m->header.token == e->wanted && m->header.msg_id == e->answer->header.msg_id) {
		memcpy(e->answer, m, sizeof(*m));
		e->wanted = 0;
		pthread_cond_signal(&e->answered);
	}
	pthread_mutex_unlock(&e->lock);
}

static void
receive(struct ntb_link *e)
{
	union vfn_message m;
	ssize_t len;

	for (;;) {
		memset(&m, 0, sizeof(m));
		len = ntb_mailbox_receive(&e->receiver, &m);
		if (len == -EAGAIN)
			return;
		if (len < 0 || vfn_msg_wrong(&m, len, false) != NULL) {
			ntb_link_fail(e);
			return;
		}
		if (m.header.type & VFN_MSG_RESPONSE)
			got_answer(e, &m);
		else
			got_event(e, &m);
	}
}

static void
kicked(struct ntb_link *e, unsigned int queue)
{
	eventfd_t count;
	bool rung;

	pthread_mutex_lock(&e->lock);
	rung = e->kick_fd[queue] >= 0 && eventfd_read(e->kick_fd[queue], &count) == 0;
	pthread_mutex_unlock(&e->lock);
	if (rung)
		ntb_link_notify(e, queue, queue, sizeof(uint16_t));
}

void *
ntb_link_thread(void *arg)
{
	struct ntb_link *e = arg;
	struct epoll_event ev[16];
	int n, i;

	for (;;) {
		n = epoll_wait(e->epoll_fd, ev, 16, is_dead(e) ? -1 : TICK_MS);
		for (i = 0; i < n; i++) {
			if (ev[i].data.u32 == NTB_LINK_EV_STOP)
				return NULL;
			if (ev[i].data.u32 < VFN_MAX_QUEUES)
				kicked(e, ev[i].data.u32);
		}
		if (is_dead(e)) {
			/* Nobody asks for anything but the end. */
			epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, e->ntb->link_fd, NULL);
			epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, e->ntb->doorbell_fd, NULL);
			continue;
		}
		ntb_clear(e->ntb, UINT32_C(1) << VFN_NTB_BELL_MESSAGE);
		receive(e);
		if (!ntb_link_up(e->ntb))
			ntb_link_fail(e);
	}
}
