/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Doorbells as memory: the front-end is offered the page of each queue's doorbell ("host
 * notifier" in the vhost-user protocol), and maps it where its guest kicks.
 *
 * librte_vhost asks the front-end and blocks until it answers, without a limit in time, so a
 * thread asks that the device has for as long as a guest takes part. vfn_notify_stop() ends it: a
 * front-end whose message is being handled cannot answer now, a hostile one never does, and once
 * the message thread returns from dev_close the connection may be freed.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <rte_common.h>

#include <vfn_signal.h>

#include "vfn_drv.h"
#include "vfn_trace.h"

/*
 * An answer that was not waited for is taken for that to the next question, and while nobody
 * reads them answers pile up. A connection that has so many is asked no more.
 */
#define MAX_UNANSWERED 8

/* A thread that does not notice a signal, sent each millisecond, after so many is cancelled. */
#define MAX_SIGNALS 100

static const char *const state_names[] = {
	[VFN_DOORBELL_OFF] = "off",
	[VFN_DOORBELL_READY] = "ready",
	[VFN_DOORBELL_OFFERED] = "offered",
	[VFN_DOORBELL_MAPPED] = "mapped",
	[VFN_DOORBELL_REFUSED] = "refused",
};

/* At probe, when nobody else knows the device. */
void
vfn_notify_init(struct vfn_dev *dev, const struct vfn_args *args)
{
	struct vfn_notify *n = &dev->doorbells;

	n->fd = n->vid = -1;
	n->asked = args->doorbell;
	if (!n->asked)
		return;
	if (args->function.pollers.sleep) {
		DEV_LOG(NOTICE, dev,
			"doorbell=on has no effect with idle=sleep: a poller that sleeps is woken "
			"by eventfds only");
		n->asked = false;
		return;
	}
	if (!vfn_remote_gone(dev))
		vfn_notify_find(dev);
}

/* Where the function's doorbells are. No guest has the device. */
void
vfn_notify_find(struct vfn_dev *dev)
{
	struct vfn_notify *n = &dev->doorbells;
	const uint32_t page = sysconf(_SC_PAGESIZE);
	uint16_t q;

	n->offer = false;
	if (!n->asked)
		return;
	if (dev->pci.notify_step == 0 || dev->pci.notify_step % page != 0 ||
		dev->pci.notify.offset % page != 0) {
		DEV_LOG(WARNING, dev,
			"doorbell=on has no effect: the function's doorbells are not on pages of "
			"%" PRIu32 " bytes of their own",
			page);
		return;
	}
	if (vfn_signal_number() == 0) {
		DEV_LOG(WARNING, dev, "doorbell=on has no effect: every real-time signal is taken");
		return;
	}
	for (q = 0; q < dev->pci.nb_queues; q++)
		n->offset[q] = vfn_vpci_doorbell(&dev->pci, q);
	n->offer = true;
}

/* With the doorbells' lock held. */
static void
set_state(struct vfn_dev *dev, uint16_t queue, enum vfn_doorbell state)
{
	dev->doorbells.state[queue] = state;
	DEV_LOG(DEBUG, dev, "queue %u: doorbell %s", queue, state_names[state]);
	vfn_trace_doorbell(dev->name, queue, state_names[state]);
}

static void *
ask_thread(void *arg)
{
	struct vfn_dev *dev = arg;
	struct vfn_notify *n = &dev->doorbells;
	uint16_t q;
	int ret;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	vfn_notify_lock();
	while (!n->stop) {
		for (q = 0; q < dev->pci.nb_queues && n->state[q] != VFN_DOORBELL_READY; q++)
			;
		if (q == dev->pci.nb_queues) {
			vfn_notify_wait(&n->wake);
			continue;
		}
		set_state(dev, q, VFN_DOORBELL_OFFERED);
		n->asking = true;
		vfn_notify_unlock();
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		ret = rte_vhost_host_notifier_ctrl(n->vid, q, true);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		vfn_notify_lock();
		n->asking = false;
		set_state(dev, q, ret == 0 ? VFN_DOORBELL_MAPPED : VFN_DOORBELL_REFUSED);
	}
	vfn_notify_unlock();
	return NULL;
}

/* Of all signals the thread takes only the one that is meant for it. */
static int
thread_start(struct vfn_dev *dev)
{
	sigset_t set, old;
	int ret;

	sigfillset(&set);
	sigdelset(&set, vfn_signal_number());
	pthread_sigmask(SIG_SETMASK, &set, &old);
	ret = pthread_create(&dev->doorbells.thread, NULL, ask_thread, dev);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret == 0)
		pthread_setname_np(dev->doorbells.thread, "vfn-doorbell");
	return ret;
}

/*
 * Is every doorbell in the file, and will be? Who maps a page that is not gets a bus error, and
 * that is the front-end, when its guest kicks.
 */
static bool
pages_stay(const struct vfn_dev *dev, int fd, uint64_t size)
{
	const struct vfn_vpci_place *place = &dev->pci.notify;
	const uint64_t page = sysconf(_SC_PAGESIZE);
	uint64_t end = RTE_MIN(size, (uint64_t)place->offset + place->length);
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	uint16_t q;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0)
		return false;
	end = RTE_MIN(end, (uint64_t)st.st_size);
	for (q = 0; q < dev->pci.nb_queues; q++)
		if (end < page || dev->doorbells.offset[q] > end - page)
			return false;
	return true;
}

/* Does the guest's front-end take part? Before its queues start, the function is not reset. */
void
vfn_notify_start(struct vfn_dev *dev)
{
	const uint64_t needed = UINT64_C(1) << VHOST_USER_PROTOCOL_F_BACKEND_REQ |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD |
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_HOST_NOTIFIER;
	struct vfn_notify *n = &dev->doorbells;
	uint64_t protocol, size;
	int fd, ret;

	if (!n->offer ||
		rte_vhost_get_negotiated_protocol_features(dev->guest->vid, &protocol) < 0 ||
		(protocol & needed) != needed)
		return;
	if (dev->guest->unanswered >= MAX_UNANSWERED) {
		DEV_LOG(INFO, dev, "no doorbells: the front-end did not answer too often");
		return;
	}
	ret = dev->pci.link->ops->get_region_fd(dev->pci.link, dev->pci.notify.region, &fd, &size);
	if (ret == 0 && !pages_stay(dev, fd, size))
		ret = -ERANGE;
	if (ret < 0) {
		DEV_LOG(WARNING, dev, "no doorbells: the function does not hand them out: %s",
			strerror(-ret));
		return;
	}
	pthread_cond_init(&n->wake, NULL);
	vfn_notify_lock();
	n->stop = n->asking = false;
	n->vid = dev->guest->vid;
	n->fd = fd;
	ret = thread_start(dev);
	if (ret != 0)
		n->vid = n->fd = -1;
	vfn_notify_unlock();
	if (ret != 0) {
		DEV_LOG(WARNING, dev, "no doorbells: cannot start a thread: %s", strerror(ret));
		pthread_cond_destroy(&n->wake);
	}
}

/* The queue runs. What the front-end has mapped once it keeps until it stops the device. */
void
vfn_notify_queue(struct vfn_dev *dev, uint16_t queue)
{
	struct vfn_notify *n = &dev->doorbells;

	if (n->fd < 0)
		return;
	vfn_notify_lock();
	if (n->state[queue] == VFN_DOORBELL_OFF) {
		set_state(dev, queue, VFN_DOORBELL_READY);
		pthread_cond_signal(&n->wake);
	}
	vfn_notify_unlock();
}

/*
 * Get the thread out of librte_vhost. Reading the answer ends with the signal, in order. A send to
 * a socket that a front-end keeps full is tried again after each. A shutdown() of the socket would
 * end it, but librte_vhost alone has that: the driver hears of a connection with SET_FEATURES, as
 * few applications call rte_vdpa_vfn_new_connection(), and SET_BACKEND_REQ_FD may come before. So
 * cancelling is the last resort. It hits the thread in a system call of librte_vhost's, with no
 * lock of ours, and leaves librte_vhost's lock of the back-channel taken. Only a message that wants
 * an answer takes that, and none is sent to this connection any more; vfn_config.c's want none.
 */
static void
interrupt(struct vfn_dev *dev)
{
	struct vfn_notify *n = &dev->doorbells;
	unsigned int signals;
	struct timespec end;
	void *result;

	dev->guest->unanswered++;
	for (signals = 1;; signals++) {
		pthread_kill(n->thread, vfn_signal_number());
		if (signals == MAX_SIGNALS)
			pthread_cancel(n->thread);
		clock_gettime(CLOCK_MONOTONIC, &end);
		end.tv_nsec += 1000000;
		end.tv_sec += end.tv_nsec / 1000000000;
		end.tv_nsec %= 1000000000;
		if (pthread_clockjoin_np(n->thread, &result, CLOCK_MONOTONIC, &end) == 0)
			break;
	}
	if (result == PTHREAD_CANCELED) {
		DEV_LOG(WARNING, dev,
			"the front-end takes no messages, it is offered no doorbells");
		dev->guest->unanswered = MAX_UNANSWERED;
	}
}

/* Nothing of this device is in librte_vhost any more on return. */
void
vfn_notify_stop(struct vfn_dev *dev)
{
	struct vfn_notify *n = &dev->doorbells;
	bool asking;

	if (n->fd < 0)
		return;
	vfn_notify_lock();
	n->stop = true;
	asking = n->asking;
	pthread_cond_signal(&n->wake);
	vfn_notify_unlock();
	if (asking)
		interrupt(dev);
	else
		pthread_join(n->thread, NULL);
	pthread_cond_destroy(&n->wake);
	vfn_notify_lock();
	n->vid = n->fd = -1;
	memset(n->state, VFN_DOORBELL_OFF, sizeof(n->state));
	vfn_notify_unlock();
}

const char *
vfn_notify_state(struct vfn_dev *dev, uint16_t queue)
{
	uint8_t state;

	vfn_notify_lock();
	state = dev->doorbells.state[queue];
	vfn_notify_unlock();
	return state_names[state];
}

/*
 * librte_vhost sends it to the front-end; it stays ours. Asked on the doorbells' thread, for whose
 * end the message thread waits with the device's lock held: that one is not taken.
 */
int
vfn_notify_fd(int vid)
{
	struct vfn_dev *dev = vfn_dev_get_by_vid(vid);
	int fd = -1;

	if (dev == NULL)
		return -1;
	vfn_notify_lock();
	if (dev->doorbells.vid == vid)
		fd = dev->doorbells.fd;
	vfn_notify_unlock();
	vfn_dev_put(dev);
	return fd;
}

int
vfn_notify_area(int vid, int queue, uint64_t *offset, uint64_t *size)
{
	struct vfn_dev *dev = vfn_dev_get_by_vid(vid);
	int ret = -1;

	if (dev == NULL)
		return ret;
	if (queue >= 0 && queue < (int)vfn_nb_rings(dev)) {
		*offset = dev->doorbells.offset[queue];
		*size = sysconf(_SC_PAGESIZE); /* QEMU takes no other */
		ret = 0;
	}
	vfn_dev_put(dev);
	return ret;
}
