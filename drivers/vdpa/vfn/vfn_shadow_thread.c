/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The thread that relays where the link does no jobs of a driver's. Else there is none: the poller
 * of the function's queue relays between its own rounds, and so never waits for a core that it
 * spins on.
 *
 * The thread works on what dev->shadow has. That changes only while there is no thread: it is
 * stopped by a request that it answers by ending. Control, with the device's lock held, but for the
 * thread itself.
 */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_common.h>

#include "vfn_guard.h"
#include "vfn_shadow.h"

/* Where kicks can't be waited for guests are looked at this often. */
#define POLL_MS 1

/*
 * Behind windows what one side asks for may cross with what the other does, and neither is told:
 * who is armed looks so many times more before it sleeps, and now and then after that, since nobody
 * knows how long it takes from one side to the other.
 */
#define SETTLE	  10
#define WINDOW_MS 100

static bool
still_nothing(const struct vfn_dev *dev)
{
	unsigned int q;

	for (q = 0; q < dev->pci.nb_queues; q++)
		if (dev->shadow[q] != NULL && dev->shadow[q]->live &&
			vfn_shadow_ring_pending(dev->shadow[q]))
			return false;
	return true;
}

/* A command of the control queue was carried out. False: to be tried again. */
static bool
answer(struct vfn_dev *dev, struct vfn_shadow *s)
{
	bool kept;

	if (!vfn_dev_trylock(dev))
		return false;
	kept = vfn_ctrl_answer(dev, vringh_get_state(&s->guest).avail);
	vfn_dev_unlock(dev);
	if (kept)
		vfn_shadow_ring_answer(s);
	return kept;
}

static void *
shadow_thread(void *arg)
{
	struct vfn_dev *dev = arg;
	struct vfn_shadow_thread *t = &dev->shadow_thread;
	struct epoll_event event[8];
	const int sleep_ms = t->must_poll ? POLL_MS : vfn_shadow_by_windows(dev) ? WINDOW_MS : -1;
	bool crossing = false;
	unsigned int settle;

	/* The guest's memory and its dirty log may be cut off. */
	vfn_guard_unblock();
	while (!__atomic_load_n(&t->quit, __ATOMIC_ACQUIRE)) {
		unsigned int moved = 0, q;
		bool pending = false, unsaid = false;

		for (q = 0; q < dev->pci.nb_queues; q++)
			if (dev->shadow[q] != NULL && dev->shadow[q]->live)
				moved += vfn_shadow_ring_run(&dev->shadow[q]->job);
		for (q = 0; q < dev->pci.nb_queues; q++)
			if (dev->shadow[q] != NULL && dev->shadow[q]->unsaid)
				unsaid |= !answer(dev, dev->shadow[q]);
		crossing |= moved > 0 && vfn_shadow_by_windows(dev);
		if (moved > 0)
			continue;
		for (q = 0; q < dev->pci.nb_queues; q++)
			if (dev->shadow[q] != NULL && dev->shadow[q]->live)
				pending |= vfn_shadow_ring_arm(&dev->shadow[q]->job);
		settle = crossing && !pending && !t->must_poll ? SETTLE : 0;
		for (; settle > 0; settle--)
			if (epoll_wait(t->epoll_fd, event, RTE_DIM(event), POLL_MS) != 0 ||
				!still_nothing(dev))
				break;
		if (settle > 0)
			continue;
		crossing = crossing && pending;
		/* Edges: one that came since they were armed is still reported. */
		epoll_wait(t->epoll_fd, event, RTE_DIM(event),
			pending	       ? 0 :
				unsaid ? POLL_MS :
					 sleep_ms);
	}
	return NULL;
}

static bool
wait_for(struct vfn_shadow_thread *t, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	return fd >= 0 && epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* There is none any more. */
static void
thread_close(struct vfn_shadow_thread *t)
{
	if (t->epoll_fd >= 0)
		close(t->epoll_fd);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	*t = (struct vfn_shadow_thread){0};
}

/* Relays may be added and removed. */
void
vfn_shadow_pause(struct vfn_dev *dev)
{
	struct vfn_shadow_thread *t = &dev->shadow_thread;

	if (!t->runs)
		return;
	__atomic_store_n(&t->quit, true, __ATOMIC_RELEASE);
	eventfd_write(t->wake_fd, 1);
	pthread_join(t->id, NULL);
	thread_close(t);
}

void
vfn_shadow_resume(struct vfn_dev *dev)
{
	struct vfn_shadow_thread *t = &dev->shadow_thread;
	unsigned int q, n = 0;
	sigset_t all, old;
	int ret = 0;

	if (t->runs || vfn_vpci_does_jobs(&dev->pci))
		return;
	for (q = 0; q < dev->pci.nb_queues; q++)
		n += dev->shadow[q] != NULL && dev->shadow[q]->live;
	if (n == 0)
		return;
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	/* Without it the thread would not even nap. */
	if (t->epoll_fd < 0)
		ret = errno;
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* What can't be waited for is looked at now and then: a doorbell in memory raises nothing.
	 */
	t->must_poll = !wait_for(t, t->wake_fd) || dev->doorbells.fd >= 0;
	for (q = 0; q < dev->pci.nb_queues; q++) {
		struct vfn_shadow *s = dev->shadow[q];

		if (s != NULL && s->live && (!wait_for(t, s->guest_kick) || !wait_for(t, s->call)))
			t->must_poll = true;
	}
	if (ret == 0) {
		/* It handles no signal but those of its own doing. */
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		ret = pthread_create(&t->id, NULL, shadow_thread, dev);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (ret != 0) {
		DEV_LOG(ERR, dev, "no thread for the shadow rings, they stand still: %s",
			strerror(ret));
		thread_close(t);
		return;
	}
	pthread_setname_np(t->id, "vfn-shadow");
	t->runs = true;
}
