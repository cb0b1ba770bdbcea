/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The life cycle of a device: from librte_vhost's idea of a guest to a running function and
 * back. With the device's lock held; on librte_vhost's message thread, but for vfn_life_check() and
 * what an endpoint does when it comes and goes, on a thread of its own.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include <rte_alarm.h>
#include <rte_common.h>

#include "vfn_drv.h"
#include "vfn_trace.h"

/* librte_vhost has done with a message by then. */
#define CONF_LATE_US 2000
/* What is somebody else's may be let go of at any time, without a word. */
#define BUSY_US 100000

static bool retries; /* atomic: there is an alarm for retry() */

static const char *const state_names[VFN_STATE_MAX] = {
	[VFN_IDLE] = "idle",
	[VFN_CONFIGURED] = "configured",
	[VFN_RUNNING] = "running",
	[VFN_SUSPENDED] = "suspended",
	[VFN_FAILED] = "failed",
};

/*
 * The legal moves: from (row) to (column).
 *
 *   dev_conf         idle, failed -> configured -> running; -> failed where something is refused
 *   set_vring_state  running stays; before that it is only noted
 *   set_features     the same; running, the dirty log may begin or end, and shadow rings with it
 *   dev_close,       running -> suspended -> idle; failed -> idle
 *   dev_cleanup
 *   dev_conf, what the function works on in use: -> failed; the guest waits
 *   endpoint gone    any -> failed; the guest waits
 *   and back         failed -> idle; the guest that waits goes on as by dev_conf
 *
 * All lead to failed where the function does not do what it is told. What it may touch stays mapped
 * then until it has been reset: in dev_close or, if it does not do even that, in a later dev_conf.
 */
static const bool legal[VFN_STATE_MAX][VFN_STATE_MAX] = {
	[VFN_IDLE] = {[VFN_CONFIGURED] = true, [VFN_FAILED] = true},
	[VFN_CONFIGURED] = {[VFN_RUNNING] = true, [VFN_FAILED] = true},
	[VFN_RUNNING] = {[VFN_SUSPENDED] = true, [VFN_FAILED] = true},
	[VFN_SUSPENDED] = {[VFN_IDLE] = true, [VFN_FAILED] = true},
	[VFN_FAILED] = {[VFN_CONFIGURED] = true, [VFN_FAILED] = true, [VFN_IDLE] = true},
};

const char *
vfn_state_name(enum vfn_state state)
{
	return state_names[state];
}

/* Before anything is done that goes with the move. */
static int
may_move(const struct vfn_dev *dev, enum vfn_state to)
{
	if (legal[dev->state][to])
		return 0;
	DEV_LOG(ERR, dev, "cannot become %s while %s", state_names[to], state_names[dev->state]);
	return -EBUSY;
}

static int
move(struct vfn_dev *dev, enum vfn_state to)
{
	int ret = may_move(dev, to);

	if (ret < 0)
		return ret;
	DEV_LOG(DEBUG, dev, "%s -> %s", state_names[dev->state], state_names[to]);
	vfn_trace_state(dev->name, state_names[dev->state], state_names[to]);
	dev->state = to;
	return 0;
}

/* Let the function reach the guest's memory, or windows: the relay alone reaches it then. */
static int
map_memory(struct vfn_dev *dev)
{
	int ret = vfn_memory_open(dev);
	uint32_t i;

	if (vfn_shadow_by_windows(dev))
		return ret < 0 ? ret : vfn_window_map(dev);
	for (i = 0; i < dev->memory.nb_regions && ret == 0; i++) {
		const struct vfn_mem_region *r = &dev->memory.region[i];
		struct vfn_dma_map map = {
			.iova = r->gpa,
			.len = r->size,
			.host = r->map->host,
			.fd = r->map->fd,
			.offset = r->map->offset,
			.readable = true,
			.writable = true,
		};

		ret = vfn_vpci_map(&dev->pci, &map);
		if (ret < 0)
			DEV_LOG(ERR, dev,
				"memory region %u (0x%" PRIx64 ", %" PRIu64
				" bytes) is refused: %s",
				i, map.iova, map.len,
				ret == -EEXIST ? "it overlaps another" : strerror(-ret));
	}
	return ret;
}

/* The function reaches nothing of it any more. */
static void
guest_memory_free(struct vfn_dev *dev)
{
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues; q++)
		vfn_shadow_drop(dev, q);
	vfn_inflight_release(dev);
	vfn_lm_release(dev);
	vfn_memory_close(dev);
}

/* A failed function keeps everything. */
static int
release(struct vfn_dev *dev)
{
	int ret = vfn_remote_gone(dev) ? 0 : vfn_vpci_release(&dev->pci);
	uint16_t q;

	for (q = 0; q < dev->pci.nb_queues && ret == 0; q++)
		ret = vfn_shadow_end_job(dev, q);
	if (ret == 0) {
		vfn_iommu_stop(dev, vfn_remote_gone(dev));
		guest_memory_free(dev);
	}
	return ret;
}

/* The link is closed, and with it the function is gone. */
void
vfn_life_close(struct vfn_dev *dev)
{
	vfn_iommu_stop(dev, true);
	guest_memory_free(dev);
}

/* A guest's device in operation no longer does what it is told. */
void
vfn_life_check(struct vfn_dev *dev)
{
	if (!dev->pci.failed || dev->state != VFN_RUNNING || move(dev, VFN_FAILED) < 0)
		return;
	DEV_LOG(ERR, dev, "serves its guest no more, until that connects again%s",
		dev->remote != NULL ? ", or the endpoint is back" : "");
	vfn_queues_error(dev);
}

struct vfn_guest *
vfn_life_guest(struct vfn_dev *dev, int vid)
{
	struct vfn_guest *guest;

	TAILQ_FOREACH(guest, &dev->guests, next)
		if (guest->vid == vid)
			break;
	return guest;
}

/* Lives until the dev_cleanup with which its connection ends. */
static struct vfn_guest *
guest_get(struct vfn_dev *dev, int vid)
{
	struct vfn_guest *guest = vfn_life_guest(dev, vid);

	if (guest != NULL)
		return guest;
	if (dev->removed) {
		DEV_LOG(ERR, dev, "is being removed, and takes no connection");
		return NULL;
	}
	guest = calloc(1, sizeof(*guest));
	if (guest != NULL) {
		guest->vid = vid;
		guest->back_fd = -1;
		guest->writeback = -1;
		memset(guest->error_fd, -1, sizeof(guest->error_fd));
	}
	if (guest == NULL || vfn_message_start(guest) < 0) {
		free(guest);
		DEV_LOG(ERR, dev, "no memory for another connection");
		return NULL;
	}
	TAILQ_INSERT_TAIL(&dev->guests, guest, next);
	return guest;
}

/* What was set up of a guest's device goes; the guest stays, and may try again. */
static int
refuse(struct vfn_dev *dev, int why)
{
	int ret;

	vfn_notify_stop(dev);
	if (dev->state == VFN_CONFIGURED)
		vfn_queues_stop(dev);
	vfn_lm_stop(dev);
	/* Kept memory is not the guest's own affair: whoever comes next sees about it. */
	if (release(dev) < 0)
		dev->guest = NULL;
	ret = move(dev, VFN_FAILED);
	return ret < 0 ? ret : why;
}

static int
set_up(struct vfn_dev *dev, struct vfn_guest *guest)
{
	int ret = may_move(dev, VFN_CONFIGURED);
	uint64_t features, own;
	uint16_t q;

	if (ret < 0)
		return ret;
	if (dev->pci.failed && release(dev) < 0) {
		DEV_LOG(ERR, dev, "takes no guest: the function has failed (%s)", dev->pci.reason);
		ret = move(dev, VFN_FAILED);
		return ret < 0 ? ret : -EIO;
	}
	dev->guest = guest;
	ret = vfn_guest_features(guest, &features);
	if (ret == 0 && vfn_remote_lacks(dev, features) != 0) {
		DEV_LOG(ERR, dev, "takes no guest: its endpoint lacks features 0x%" PRIx64,
			vfn_remote_lacks(dev, features));
		ret = -ENOTSUP;
	}
	if (ret == 0 && dev->class->begin != NULL) {
		ret = dev->class->begin(dev);
		dev->busy = ret == -EBUSY;
	}
	own = ret == 0 ? vfn_ctrl_features(dev, features) : 0;
	if (ret == 0)
		ret = vfn_vpci_negotiate(&dev->pci, own);
	if (ret == 0)
		ret = map_memory(dev);
	if (ret == 0)
		ret = vfn_iommu_start(dev, features);
	if (ret == 0)
		ret = move(dev, VFN_CONFIGURED);
	if (ret < 0)
		return refuse(dev, ret);
	vfn_notify_start(dev);
	vfn_saved_apply(dev, own);
	if (dev->class->config_start != NULL)
		ret = dev->class->config_start(dev, guest, own);
	if (dev->ctrl != 0 && guest->wanted[dev->ctrl])
		vfn_ctrl_forget(dev);
	/* A ring that is refused stays off; it harms no other. */
	for (q = 0; q < dev->pci.nb_queues && !dev->pci.failed; q++)
		if (guest->wanted[q])
			vfn_queue_start(dev, q);
	if (!dev->pci.failed)
		vfn_lm_update(dev, features);
	if (ret == 0)
		ret = vfn_vpci_driver_ok(&dev->pci);
	if (ret == 0)
		ret = move(dev, VFN_RUNNING);
	if (ret < 0)
		return refuse(dev, ret);
	vfn_config_start(dev);
	DEV_LOG(INFO, dev, "running, features 0x%" PRIx64, features);
	return 0;
}

static void retry(void *arg);

/* 0 also where it waits, for the endpoint or for what it works on: then it starts with that. */
static int
start(struct vfn_dev *dev, struct vfn_guest *guest)
{
	bool was_busy = dev->busy;
	int ret;

	dev->busy = false;
	ret = vfn_remote_gone(dev) ? -EIO : set_up(dev, guest);
	vfn_shadow_resume(dev);
	guest->waits = ret < 0 && (dev->busy || vfn_remote_dead(dev));
	if (!guest->waits)
		return ret;
	if (!dev->busy)
		DEV_LOG(WARNING, dev, "has no endpoint, the guest waits for it");
	else if (!was_busy)
		DEV_LOG(WARNING, dev, "what it works on is in use, the guest waits for it");
	if (dev->busy && !__atomic_exchange_n(&retries, true, __ATOMIC_RELAXED) &&
		rte_eal_alarm_set(BUSY_US, retry, NULL) < 0)
		__atomic_store_n(&retries, false, __ATOMIC_RELAXED);
	return 0;
}

int
vfn_life_start(struct vfn_dev *dev, int vid)
{
	struct vfn_guest *guest = guest_get(dev, vid);
	int ret;

	if (guest == NULL)
		return -ENOMEM;
	if (!vfn_message_memory(dev, guest))
		return -EINVAL;
	/* What a failed function has of the guest's last start goes first, if it can. */
	if (dev->guest == guest && dev->pci.failed)
		vfn_life_stop(dev, vid);
	/* See conf_late(). */
	if (dev->class->conf_by_call && dev->guest == guest && dev->state == VFN_RUNNING)
		return 0;
	if (dev->guest == NULL || dev->guest == guest) {
		ret = start(dev, guest);
		guest->conf = ret == 0;
		return ret;
	}
	/*
	 * It may have overtaken the end of its predecessor, whose last messages are not read yet.
	 * librte_vhost must take it for configured: only then it closes it before memory goes.
	 */
	guest->waits = guest->conf = true;
	DEV_LOG(WARNING, dev, "is in use by another connection, the new one waits for its end");
	return 0;
}

/* Idempotent: librte_vhost closes on the first GET_VRING_BASE, on a disconnect, and more. */
void
vfn_life_stop(struct vfn_dev *dev, int vid)
{
	struct vfn_guest *guest = vfn_life_guest(dev, vid);
	bool runs = dev->state == VFN_RUNNING;

	if (guest == NULL)
		return;
	guest->waits = guest->conf = false;
	if (dev->guest != guest || (runs && may_move(dev, VFN_SUSPENDED) < 0))
		return;
	if (runs || dev->pci.failed)
		vfn_queues_stop(dev);
	if (runs && move(dev, dev->pci.failed ? VFN_FAILED : VFN_SUSPENDED) < 0)
		return;
	if (runs)
		vfn_saved_keep(dev, !dev->pci.failed);
	vfn_lm_stop(dev);
	vfn_notify_stop(dev);
	vfn_config_stop(dev);
	if (move(dev, release(dev) < 0 ? VFN_FAILED : VFN_IDLE) < 0)
		return;
	dev->guest = NULL;
	DEV_LOG(INFO, dev, "stopped");
}

/* The driver hears of a connection before librte_vhost has read any of its messages. */
int
vfn_life_connection(struct vfn_dev *dev, int vid)
{
	return guest_get(dev, vid) != NULL ? 0 : dev->removed ? -ENODEV : -ENOMEM;
}

/* After RESET_OWNER a connection is as new, but for what librte_vhost does not forget either. */
static void
guest_renew(struct vfn_guest *guest)
{
	const struct vfn_guest old = *guest;

	*guest = (struct vfn_guest){
		.next = old.next,
		.vid = old.vid,
		.unanswered = old.unanswered,
		.barred = old.barred,
		.resetting = true,
		.back_fd = -1,
		.writeback = -1,
	};
	memset(guest->error_fd, -1, sizeof(guest->error_fd));
	vfn_message_forgive(guest);
}

/* What there is of it beside the guest itself. */
static void
guest_free(struct vfn_guest *guest)
{
	unsigned int q;

	vfn_map_put(guest->dirty);
	vfn_map_put(guest->inflight.map);
	free(guest->iova);
	if (guest->back_fd >= 0)
		close(guest->back_fd);
	for (q = 0; q < VFN_MAX_QUEUES; q++) {
		vfn_map_put(guest->region[q]);
		if (guest->error_fd[q] >= 0)
			close(guest->error_fd[q]);
	}
}

/* The device is free for one that waits; librte_vhost takes it for configured. */
static void
serve_next(struct vfn_dev *dev)
{
	struct vfn_guest *guest;

	TAILQ_FOREACH(guest, &dev->guests, next) {
		if (!guest->waits)
			continue;
		if (!vfn_message_memory(dev, guest) || start(dev, guest) < 0)
			DEV_LOG(ERR, dev, "the connection that has waited gets no device");
		return;
	}
}

/* On EAL's interrupt thread. */
static void
retry(void *arg)
{
	struct vfn_dev *dev = NULL;

	RTE_SET_USED(arg);
	__atomic_store_n(&retries, false, __ATOMIC_RELAXED);
	while ((dev = vfn_dev_get_next(dev)) != NULL) {
		vfn_dev_lock(dev);
		if (dev->busy)
			serve_next(dev);
		vfn_dev_unlock(dev);
	}
}

/* The guest is gone; its rings are not told one by one. */
void
vfn_life_forget(struct vfn_dev *dev, int vid)
{
	struct vfn_guest *guest = vfn_life_guest(dev, vid);

	if (guest == NULL)
		return;
	vfn_life_stop(dev, vid);
	guest_free(guest);
	if (guest->resetting) {
		guest_renew(guest);
	} else {
		TAILQ_REMOVE(&dev->guests, guest, next);
		free(guest);
	}
	if (dev->config_reader == vid)
		dev->config_reader = -1;
	if (dev->guest == NULL)
		serve_next(dev);
}

/*
 * The endpoint has ended, or hung up: nothing is touched any more. The guest waits for another,
 * which goes on where this one has left the rings.
 */
void
vfn_life_lost(struct vfn_dev *dev)
{
	struct vfn_guest *guest = dev->guest;

	vfn_life_check(dev);
	if (guest != NULL) {
		vfn_queues_leave(dev);
		vfn_lm_stop(dev);
		vfn_notify_stop(dev);
		vfn_config_stop(dev);
		/* Those of an earlier guest; of this one there is what was said at most. */
		vfn_ctrl_lost(dev);
		guest->waits = guest->conf;
	}
	guest_memory_free(dev);
	dev->guest = NULL;
	move(dev, VFN_FAILED);
}

/* There is one again, which nobody uses yet. */
void
vfn_life_back(struct vfn_dev *dev)
{
	if (move(dev, VFN_IDLE) == 0)
		serve_next(dev);
}

/*
 * The first that is heard of a connection. Before there is memory nothing else is to be done:
 * dev_conf asks for the features again.
 */
void
vfn_life_features(struct vfn_dev *dev, int vid)
{
	struct vfn_guest *guest = guest_get(dev, vid);
	uint64_t features;

	if (guest == NULL)
		return;
	guest->features = true;
	if (dev->state == VFN_RUNNING && dev->guest == guest &&
		vfn_guest_features(guest, &features) == 0)
		vfn_lm_update(dev, features);
}

/*
 * A ring is ready, and the front-end has nothing more to say: firmware, or a guest without MSI-X,
 * makes it send SET_VRING_CALL only before the rest. On EAL's interrupt thread, as librte_vhost
 * holds the ring's lock where it says so.
 */
static void
conf_late(void *arg)
{
	int vid = (intptr_t)arg;
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	struct vfn_guest *guest;
	uint16_t q;

	if (dev == NULL)
		return;
	guest = vfn_life_guest(dev, vid);
	/* librte_vhost may be taking a table now: vfn_life_late() is called when it has. */
	if (guest != NULL && !guest->memory)
		guest = NULL;
	for (q = 0; q < vfn_nb_rings(dev) && guest != NULL && !guest->conf; q++)
		if (guest->wanted[q] && vfn_life_start(dev, vid) < 0)
			break;
	vfn_dev_release(dev);
}

/* Start what librte_vhost may never configure. */
void
vfn_life_late(struct vfn_dev *dev, struct vfn_guest *guest)
{
	if (!guest->conf && dev->class->conf_by_call)
		rte_eal_alarm_set(CONF_LATE_US, conf_late, (void *)(intptr_t)guest->vid);
}

int
vfn_life_vring(struct vfn_dev *dev, int vid, uint16_t queue, bool on)
{
	struct vfn_guest *guest;
	int ret = 0;

	/* The last one may be the control queue. */
	if (queue >= vfn_nb_rings(dev))
		return 0;
	guest = guest_get(dev, vid);
	if (guest == NULL)
		return -ENOMEM;
	/* Noted while librte_vhost holds the rings' locks; they are read in dev_conf. */
	guest->wanted[queue] = on;
	if (on)
		vfn_life_late(dev, guest);
	if (dev->state != VFN_RUNNING || dev->guest != guest)
		return 0;
	DEV_LOG(DEBUG, dev, "queue %u %s", queue, on ? "ready" : "not ready");
	if (!on) {
		ret = vfn_queue_stop(dev, queue);
		if (ret == 0 && vfn_ctrl_left(dev)) {
			/* The next driver reads the configuration before it has rings. */
			vfn_life_stop(dev, vid);
			ret = vfn_life_start(dev, vid);
		}
	} else if (vfn_ctrl_is(dev, queue) && vfn_ctrl_changes(dev)) {
		/* Whose driver it is was not known when the function was set up. */
		vfn_life_stop(dev, vid);
		ret = vfn_life_start(dev, vid);
	} else {
		ret = vfn_queue_start(dev, queue);
		if (vfn_ctrl_is(dev, queue))
			vfn_ctrl_forget(dev);
	}
	vfn_shadow_resume(dev);
	vfn_life_check(dev);
	return ret;
}

/* For who drives the function without librte_vhost. */
int
vfn_life_move(struct vfn_dev *dev, enum vfn_state to)
{
	return move(dev, to);
}
