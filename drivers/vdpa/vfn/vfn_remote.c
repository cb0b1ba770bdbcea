/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A function in another process: connecting to its endpoint, noticing at once that it is gone, and
 * connecting again. A thread per device sleeps until the endpoint hangs up, and then tries every
 * RETRY_MS; it is ended by a request that it answers by ending.
 *
 * Whoever hangs up has let go of everything (vfn_endpoint_link.h): only then memory is given back,
 * and another connection made. An endpoint that is stopped does not hang up: its device is failed,
 * and keeps what it has until that is ended or goes on.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_net.h>

#include <rte_common.h>
#include <rte_vhost.h>

#include <vfn_closer.h>
#include <ntb_sim.h>
#include <vfn_endpoint_link.h>
#include <vfn_guard.h>
#include <vfn_ntb_link.h>
#include <vfn_signal.h>

#include "vfn_drv.h"

#define RETRY_MS 100

/* Bound of each answer; how long all may take: struct vfu_patience. */
#define ANSWER_MS 5000
/* How long another one at a bridge's other side may take, while it is looked for again and again.
 */
#define MEET_MS 500

bool
vfn_remote_gone(const struct vfn_dev *dev)
{
	return dev->remote != NULL && dev->remote->gone;
}

/* Nothing will be answered any more, whether or not it has hung up yet. */
bool
vfn_remote_dead(struct vfn_dev *dev)
{
	struct vfn_link *link = dev->pci.link;
	uint8_t any;

	return dev->remote != NULL &&
		(dev->remote->gone ||
			link->ops->read(link, VFN_REGION_CONFIG, 0, &any, sizeof(any)) < 0);
}

/* Something was not answered. dev->lock held. */
void
vfn_remote_check(struct vfn_dev *dev)
{
	if (dev->remote == NULL || dev->remote->gone || !vfn_remote_dead(dev))
		return;
	vfn_vpci_fail(&dev->pci, "its endpoint does not answer");
	vfn_life_check(dev);
}

/* What a guest has negotiated with another endpoint and this one does not have. */
uint64_t
vfn_remote_lacks(const struct vfn_dev *dev, uint64_t features)
{
	/* VIRTIO_F_ACCESS_PLATFORM, too, is between the driver and the front-end. */
	const uint64_t own = UINT64_C(1) << VHOST_USER_F_PROTOCOL_FEATURES |
		UINT64_C(1) << VHOST_F_LOG_ALL | UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM;

	return dev->remote != NULL ? features & ~own & ~dev->pci.features : 0;
}

/* ---- connections ---- */

/* The log gets each reason once. */
static void
explain(struct vfn_dev *dev, const char *why)
{
	struct vfn_remote *r = dev->remote;

	if (strcmp(r->why, why) == 0)
		return;
	snprintf(r->why, sizeof(r->why), "%s", why);
	DEV_LOG(ERR, dev, "endpoint %s: %s", r->path, why);
}

static uint64_t
waiting_features(struct vfn_dev *dev)
{
	struct vfn_guest *guest;
	uint64_t features;

	TAILQ_FOREACH(guest, &dev->guests, next)
		if (guest->waits && guest->memory && vfn_guest_features(guest, &features) == 0)
			return features;
	return 0;
}

/* dev->pci is of the new connection. Is it the function that it was? dev->lock held. */
static int
check_same(struct vfn_dev *dev, char *why, size_t size)
{
	const uint16_t pairs = dev->max_pairs;
	uint64_t lacks;
	int ret = dev->class->init(dev);

	if (ret < 0)
		snprintf(why, size, "its function is none of the %s class", dev->class->name);
	else if (dev->max_pairs < pairs)
		snprintf(why, size, "it has %u %s, and had %u", dev->max_pairs, dev->class->unit,
			pairs);
	if (ret == 0 && dev->max_pairs < pairs)
		ret = -ENODEV;
	/* librte_vhost was told of as many. */
	if (pairs != 0)
		dev->max_pairs = pairs;
	lacks = vfn_remote_lacks(dev, waiting_features(dev));
	if (ret == 0 && lacks != 0) {
		snprintf(why, size, "it lacks features 0x%" PRIx64 " that a guest has negotiated",
			lacks);
		ret = -ENODEV;
	}
	return ret;
}

static void
hang_up(struct vfn_dev *dev)
{
	if (dev->remote->bridged)
		vfn_ntb_hang_up(dev->pci.link);
	else
		vfn_endpoint_hang_up(dev->pci.link);
}

/* Nothing of ours is touched any more. dev->lock held. */
static void
set_gone(struct vfn_dev *dev, const char *reason)
{
	struct vfn_remote *r = dev->remote;

	dev->pci.failed = r->gone = true;
	dev->pci.reason = reason;
	snprintf(r->why, sizeof(r->why), "%s", reason);
	hang_up(dev);
}

static void
bridge_says(void *arg, const char *text)
{
	struct vfn_dev *dev = arg;

	DEV_LOG(INFO, dev, "%s", text);
}

static int
connect_bridge(struct vfn_dev *dev, char *why, size_t size, struct vfn_link **link)
{
	struct vfn_remote *r = dev->remote;
	const struct ntb_sim_params params = {.name = dev->name,
		.path = r->path,
		.bus = VFN_NTB_DRIVER_BUS,
		.size = (uint64_t)r->ntb_mb << 20,
		.latency_us = r->ntb_us,
		.log = bridge_says,
		.log_arg = dev};
	struct ntb *ntb;
	int ret = ntb_sim_open(&params, &ntb, why, size);

	if (ret < 0)
		return ret;
	return vfn_ntb_connect(ntb, r->by_host ? &r->control : NULL,
		r->watched ? MEET_MS : ANSWER_MS, ANSWER_MS, why, size, link);
}

static int
connect_link(struct vfn_dev *dev, char *why, size_t size, struct vfn_vpci *pci)
{
	struct vfn_remote *r = dev->remote;
	int ret;

	*pci = (struct vfn_vpci){.name = dev->name,
		.drain_ms = dev->pci.drain_ms,
		.answer_ms = ANSWER_MS,
		.failures = dev->pci.failures};
	ret = r->ntb ? connect_bridge(dev, why, size, &pci->link) :
		       vfn_endpoint_connect(r->path, r->by_host ? &r->control : NULL, ANSWER_MS,
			       &r->patience, why, size, &pci->link);
	if (ret < 0)
		return ret;
	ret = vfn_vpci_init(pci);
	if (ret == 0)
		return 0;
	snprintf(why, size, "it serves no function that this driver can use");
	pci->link->ops->close(pci->link);
	return ret;
}

/*
 * The device has the new connection; -EBUSY, -EAGAIN or other negative errno: it still has none.
 * dev->lock not held.
 */
static int
attach(struct vfn_dev *dev, char *why, size_t size)
{
	struct vfn_link *old;
	struct vfn_vpci pci;
	uint16_t nb_queues;
	int ret = connect_link(dev, why, size, &pci);

	if (ret < 0)
		return ret;
	vfn_dev_lock(dev);
	if (dev->remote->released) {
		vfn_dev_unlock(dev);
		pci.link->ops->close(pci.link);
		snprintf(why, size, "it was left to another process");
		return -EAGAIN;
	}
	old = dev->pci.link;
	nb_queues = dev->pci.nb_queues;
	dev->pci = pci;
	old->ops->close(old);
	dev->remote->bridged = dev->remote->ntb;
	ret = check_same(dev, why, size);
	if (ret == 0 && dev->config_intr != NULL)
		ret = vfn_vpci_config_irq(&dev->pci, dev->config_fd);
	if (ret == 0) {
		dev->remote->gone = false;
		dev->remote->links++;
		dev->remote->why[0] = '\0';
		vfn_stats_go_on(dev);
		vfn_notify_find(dev);
		if (dev->state == VFN_FAILED) {
			DEV_LOG(NOTICE, dev, "endpoint %s is there again", dev->remote->path);
			vfn_life_back(dev);
		}
	} else {
		dev->pci.failed = true;
		dev->pci.reason = "its endpoint is not what it was";
		/* What the queues of the one before have is still to be let go of. */
		dev->pci.nb_queues = RTE_MAX(dev->pci.nb_queues, nb_queues);
		hang_up(dev);
	}
	vfn_dev_unlock(dev);
	return ret;
}

static void
try_again(struct vfn_dev *dev)
{
	char why[sizeof(dev->remote->why)] = "descriptors that it has sent are still being closed";

	/* It could have more and more of them. */
	if (vfn_closer_waiting(dev->remote->patience.closer) == 0 &&
		attach(dev, why, sizeof(why)) == 0)
		return;
	vfn_dev_lock(dev);
	explain(dev, why);
	vfn_dev_unlock(dev);
}

static void
lost(struct vfn_dev *dev)
{
	vfn_dev_lock(dev);
	if (!dev->remote->gone) {
		vfn_vpci_lost(&dev->pci, "its endpoint has ended");
		set_gone(dev, dev->pci.reason);
		vfn_life_lost(dev);
	}
	vfn_dev_unlock(dev);
}

static void *
watch_thread(void *arg)
{
	struct vfn_dev *dev = arg;
	struct vfn_remote *r = dev->remote;
	eventfd_t count;
	int timeout;

	/* Guests' rings are looked at when it is gone. */
	vfn_guard_unblock();
	while (!__atomic_load_n(&r->quit, __ATOMIC_ACQUIRE)) {
		struct pollfd p[] = {{r->wake_fd, POLLIN, 0}, {-1, POLLRDHUP, 0}};

		vfn_dev_lock(dev);
		timeout = r->gone && !r->released ? RETRY_MS : -1;
		if (!r->gone)
			p[1].fd = r->bridged ? vfn_ntb_fd(dev->pci.link) :
					       vfn_endpoint_fd(dev->pci.link);
		if (r->bridged)
			p[1].events = POLLIN;
		vfn_dev_unlock(dev);
		if (poll(p, RTE_DIM(p), timeout) < 0)
			continue;
		if (p[0].revents != 0)
			eventfd_read(r->wake_fd, &count);
		else if (p[1].revents != 0)
			lost(dev);
		else if (timeout >= 0)
			try_again(dev);
	}
	return NULL;
}

/* ---- at probe and removal, when nobody else knows the device ---- */

/* What the device arguments say of the function. */
static void
set_control(struct vfn_endpoint_control *control, const struct vfn_net_params *net)
{
	const uint64_t segmentation = UINT64_C(1) << VIRTIO_NET_F_HOST_TSO4 |
		UINT64_C(1) << VIRTIO_NET_F_HOST_TSO6 | UINT64_C(1) << VIRTIO_NET_F_HOST_ECN |
		UINT64_C(1) << VIRTIO_NET_F_HOST_UFO | UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4 |
		UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6 | UINT64_C(1) << VIRTIO_NET_F_GUEST_ECN |
		UINT64_C(1) << VIRTIO_NET_F_GUEST_UFO;
	const uint64_t checksums = UINT64_C(1) << VIRTIO_NET_F_CSUM |
		UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM |
		UINT64_C(1) << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;

	control->features = UINT64_MAX;
	if (net->offloads != VFN_OFFLOADS_ALL)
		control->features &= ~segmentation;
	if (net->offloads == VFN_OFFLOADS_OFF)
		control->features &= ~checksums;
	memcpy(control->mac, net->mac, sizeof(control->mac));
	control->mtu = net->mtu;
	control->max_pairs = net->max_pairs;
}

/*
 * Connect for the first time. One that another process uses, whose successor this one may be, is
 * waited for like one that has ended; before it is there nothing is known of it.
 */
int
vfn_remote_open(struct vfn_dev *dev, const struct vfn_args *args)
{
	struct vfn_remote *r = calloc(1, sizeof(*r));
	char why[sizeof(r->why)];
	int ret;

	if (r == NULL)
		return -ENOMEM;
	strcpy(r->path, args->path);
	r->ntb = args->ntb;
	r->ntb_mb = args->ntb_mb;
	r->ntb_us = args->ntb_us;
	r->by_host = args->control;
	set_control(&r->control, &args->net);
	r->gone = true;
	dev->remote = r;
	dev->pci.link = vfn_endpoint_none();
	r->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r->patience.closer = vfn_closer_new();
	ret = dev->pci.link == NULL || r->wake_fd < 0 || r->patience.closer == NULL ?
		-ENOMEM :
		vfn_signal_init();
	if (ret < 0) {
		DEV_LOG(ERR, dev, "cannot watch an endpoint: %s", strerror(-ret));
		goto fail;
	}
	ret = attach(dev, why, sizeof(why));
	if (ret == -EBUSY) {
		set_gone(dev, "its endpoint has another client");
		snprintf(r->why, sizeof(r->why), "%s", why);
		dev->state = VFN_FAILED;
		DEV_LOG(WARNING, dev, "endpoint %s: %s, which has to leave first", r->path, why);
		ret = 0;
	}
	if (ret == 0)
		return 0;
	explain(dev, why);
	vfn_signal_fini();
fail:
	if (r->wake_fd >= 0)
		close(r->wake_fd);
	if (dev->pci.link != NULL)
		dev->pci.link->ops->close(dev->pci.link);
	vfn_closer_free(r->patience.closer);
	free(r);
	dev->remote = NULL;
	return ret;
}

/* From now on it may be gone, and come back. */
int
vfn_remote_watch(struct vfn_dev *dev)
{
	struct vfn_remote *r = dev->remote;
	sigset_t all, old;
	int ret;

	/* It handles no signal but those of its own doing. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&r->thread, NULL, watch_thread, dev);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	r->watched = ret == 0;
	if (ret != 0)
		DEV_LOG(ERR, dev, "no thread to watch its endpoint: %s", strerror(ret));
	else
		pthread_setname_np(r->thread, "vfn-endpoint");
	return -ret;
}

/* It is watched no more; the link stays. dev->lock not held. */
void
vfn_remote_unwatch(struct vfn_dev *dev)
{
	struct vfn_remote *r = dev->remote;

	if (r == NULL || !r->watched)
		return;
	__atomic_store_n(&r->quit, true, __ATOMIC_RELEASE);
	eventfd_write(r->wake_fd, 1);
	pthread_join(r->thread, NULL);
	r->watched = false;
}

/* After the link. */
void
vfn_remote_close(struct vfn_dev *dev)
{
	if (dev->remote == NULL)
		return;
	close(dev->remote->wake_fd);
	vfn_closer_free(dev->remote->patience.closer);
	free(dev->remote);
	dev->remote = NULL;
	vfn_signal_fini();
}

/* ---- handing over to another process; dev->lock held ---- */

int
vfn_remote_release(struct vfn_dev *dev)
{
	struct vfn_remote *r = dev->remote;

	if (r == NULL)
		return 0;
	if (dev->guest != NULL)
		return -EBUSY;
	r->released = true;
	if (!r->gone) {
		set_gone(dev, "it was left to another process");
		vfn_life_lost(dev);
		DEV_LOG(INFO, dev, "endpoint %s is left to another process", r->path);
	}
	/* Whoever waits for the socket holds it. */
	eventfd_write(r->wake_fd, 1);
	return 0;
}

void
vfn_remote_reclaim(struct vfn_dev *dev)
{
	struct vfn_remote *r = dev->remote;

	if (r == NULL || !r->released)
		return;
	r->released = false;
	eventfd_write(r->wake_fd, 1);
}
