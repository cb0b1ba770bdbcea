/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The adaptor's thread: messages of the kernel are read, done and answered, one after the other,
 * under the owner's lock. They may be anything, in any order. Between them queues that were not
 * ready with DRIVER_OK are looked after.
 */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include <rte_common.h>

#include "vduse_private.h"
#include "vfn_guard.h"

/* While something is waited for that nobody tells. */
#define LOOK_MS 2

#define STATUS_KNOWN \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | \
		VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)

/* ---- the status ---- */

int
vduse_reset(struct vfn_vduse *v)
{
	bool any = false;
	uint32_t i;
	int ret = 0;

	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		any |= v->queue[i].started;
	if (any)
		vduse_queues_stop(v);
	/* The function is not ours before there is a driver: its owner may have others. */
	if (v->begun && !v->ended)
		v->owner->end(v->data, !v->pci->failed);
	v->ended = v->begun;
	if (v->begun)
		ret = vfn_vpci_release(v->pci);
	if (v->begun && ret == 0) {
		vduse_iotlb_free(v);
		v->begun = v->ended = false;
		v->owner->released(v->data);
	}
	for (i = 0; i < VFN_VDUSE_QUEUES; i++)
		v->queue[i].started = v->queue[i].off = false;
	v->how = VFN_VDUSE_NEW;
	v->phase = ret == 0 ? IDLE : FAILED;
	return ret;
}

/* Whatever it is, the device does nothing until its driver resets it. */
static void
fail(struct vfn_vduse *v, const char *why)
{
	VDUSE_LOG(ERR, v, "%s: it does nothing until its driver resets it", why);
	vduse_reset(v);
	v->phase = FAILED;
}

static int
negotiate(struct vfn_vduse *v)
{
	uint64_t ours = FEATURE(VIRTIO_F_ACCESS_PLATFORM), unknown, features;
	int ret;

	ret = vduse_ioctl(v, VDUSE_DEV_GET_FEATURES, &v->features);
	if (ret < 0) {
		VDUSE_LOG(ERR, v, "the kernel does not tell its features: %s", strerror(-ret));
		return ret;
	}
	unknown = v->features & ~(v->pci->features | ours);
	if (unknown != 0 || !(v->features & ours)) {
		VDUSE_COMPLAIN(v, "features 0x%" PRIx64 " are refused: 0x%" PRIx64 " %s",
			v->features, unknown != 0 ? unknown : ours,
			unknown != 0 ? "is not offered" : "is needed");
		return -ENOTSUP;
	}
	/* Queues are reset one by one on our side only. */
	features = (v->features | FEATURE(VIRTIO_F_RING_RESET)) & v->pci->features;
	ret = v->begun ? -EIO : v->owner->begin(v->data, features);
	if (ret < 0)
		return ret;
	v->begun = true;
	ret = vfn_vpci_negotiate(v->pci, features);
	if (ret < 0)
		vduse_reset(v);
	return ret;
}

/* DRIVER_OK is known to both sides from here on. */
static void
driver_ok(struct vfn_vduse *v)
{
	v->phase = QUEUES;
	v->deadline = vduse_now_ms() + v->ready_ms;
}

static int
set_status(struct vfn_vduse *v, uint8_t status)
{
	uint8_t more = status & ~v->status;
	int ret;

	VDUSE_LOG(DEBUG, v, "status 0x%x", status);
	if (status == 0) {
		ret = vduse_reset(v);
		v->status = ret == 0 ? 0 : v->status;
		v->features = 0;
		for (uint32_t i = 0; i < VFN_VDUSE_QUEUES; i++)
			v->queue[i].have_stopped = false;
		return ret;
	}
	/* Bits are only added (virtio 1.3, 2.1.1), in their order. */
	if ((v->status & ~status) != 0 || (status & ~STATUS_KNOWN) != 0 ||
		((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK)) ||
		((more & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)) &&
			((v->status & VIRTIO_CONFIG_S_FAILED) || v->phase == FAILED))) {
		VDUSE_COMPLAIN(v, "status 0x%x after 0x%x is refused", status, v->status);
		return -EINVAL;
	}
	if ((more & VIRTIO_CONFIG_S_FEATURES_OK) && (ret = negotiate(v)) < 0)
		return ret;
	v->status = status;
	if (more & VIRTIO_CONFIG_S_FAILED) {
		fail(v, "its driver has given up");
	} else if (more & VIRTIO_CONFIG_S_DRIVER_OK) {
		/* Interrupts are refused until the kernel has the answer. */
		v->phase = CONFIRM;
		v->deadline = vduse_now_ms() + v->ready_ms;
	}
	return 0;
}

/* ---- messages ---- */

static int
update_iotlb(struct vfn_vduse *v, uint64_t start, uint64_t last)
{
	VDUSE_LOG(DEBUG, v, "memory changes at 0x%" PRIx64 " to 0x%" PRIx64, start, last);
	if (start > last)
		return -EINVAL;
	/* Before there is a driver, nothing is mapped; then all is looked for. */
	if (v->phase == IDLE || v->phase == CONFIRM || v->phase == FAILED)
		return 0;
	return vduse_iotlb_update(v, start, last);
}

static void
message(struct vfn_vduse *v, const struct vduse_dev_request *request)
{
	struct vduse_dev_response response = {.request_id = request->request_id};
	int ret;

	v->owner->lock(v->data);
	switch (request->type) {
	case VDUSE_GET_VQ_STATE:
		ret = vduse_queue_position(v, request->vq_state.index, &response.vq_state);
		break;
	case VDUSE_SET_STATUS:
		ret = set_status(v, request->s.status);
		break;
	case VDUSE_UPDATE_IOTLB:
		ret = update_iotlb(v, request->iova.start, request->iova.last);
		break;
	default:
		VDUSE_COMPLAIN(
			v, "a message of type %u, which nobody knows, is refused", request->type);
		ret = -EINVAL;
	}
	v->messages++;
	v->refused += ret < 0;
	v->owner->unlock(v->data);
	response.result = ret < 0 ? VDUSE_REQ_RESULT_FAILED : VDUSE_REQ_RESULT_OK;
	while (v->sys->write(v->fd, &response, sizeof(response)) < 0 && errno == EINTR)
		;
	/* Who asked has given up waiting, or is gone: nobody misses the answer. */
}

/* All that there are. */
static void
messages(struct vfn_vduse *v)
{
	struct vduse_dev_request request;
	ssize_t n;

	do {
		n = v->sys->read(v->fd, &request, sizeof(request));
		if (n == sizeof(request))
			message(v, &request);
	} while ((n == sizeof(request) || (n < 0 && errno == EINTR)) &&
		!__atomic_load_n(&v->quit, __ATOMIC_ACQUIRE));
}

/* ---- what is waited for ---- */

/* Rings and buffers are within reach: queues that are ready run. */
static void
run(struct vfn_vduse *v)
{
	uint32_t i;

	v->owner->mapped(v->data);
	for (i = 0; i < VFN_VDUSE_QUEUES && !v->pci->failed; i++)
		if (!v->queue[i].off)
			vduse_queue_start(v, i);
	if (vfn_vpci_driver_ok(v->pci) < 0) {
		fail(v, "the function does not begin");
		return;
	}
	v->phase = RUNNING;
	v->owner->running(v->data);
	VDUSE_LOG(INFO, v, "running, features 0x%" PRIx64, v->features);
}

/* Those that are not ready in time stay off. */
static bool
queues_ready(struct vfn_vduse *v)
{
	bool late = vduse_now_ms() >= v->deadline, all = true;
	struct vduse_vq_info info;
	uint32_t i;

	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		if (v->queue[i].off || (vduse_queue_info(v, i, &info) && info.ready))
			continue;
		all = false;
		if (late) {
			VDUSE_LOG(WARNING, v,
				"queue %u was not ready within %u ms: it stays off until a reset",
				i, v->ready_ms);
			v->queue[i].off = true;
		}
	}
	return all || late;
}

/* In front of buffers: the function would look for them as soon as it has the rings. */
static void
wait_for_kicks(struct vfn_vduse *v)
{
	uint32_t i;

	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		struct vduse_vq_eventfd kick = {.index = i, .fd = v->queue[i].kick_fd};
		eventfd_t before;

		/* The kernel has forgotten it with the last reset: what is in it is old. */
		eventfd_read(kick.fd, &before);
		vduse_ioctl(v, VDUSE_VQ_SETUP_KICKFD, &kick);
	}
	v->phase = KICK;
}

/* The driver has the device, and its queues are to run. */
static void
begin(struct vfn_vduse *v)
{
	if (!v->begun) {
		/* From who served before us. */
		v->status = STATUS_KNOWN & ~VIRTIO_CONFIG_S_FAILED;
		if (negotiate(v) < 0) {
			fail(v, "its driver cannot go on");
			return;
		}
	}
	driver_ok(v);
}

/* Locked. One step, if it can be made. */
static void
step(struct vfn_vduse *v, bool kicked)
{
	enum phase before;

	do {
		before = v->phase;
		switch (v->phase) {
		case CONFIRM:
			/* Whoever has asked may have gone since: then nothing else comes. */
			if (vduse_ioctl(v, VDUSE_DEV_INJECT_CONFIG_IRQ, NULL) == 0)
				begin(v);
			else if (v->deadline != 0 && vduse_now_ms() >= v->deadline)
				fail(v, "the kernel does not take DRIVER_OK");
			break;
		case QUEUES:
			if (!queues_ready(v))
				break;
			vduse_iotlb_update(v, 0, UINT64_MAX);
			if (v->pci->failed)
				fail(v, "the function does not take its memory");
			else if (vduse_buffers_mapped(v))
				run(v);
			else
				wait_for_kicks(v);
			break;
		case KICK:
			if (!kicked)
				break;
			kicked = false;
			vduse_iotlb_update(v, 0, UINT64_MAX);
			if (v->pci->failed)
				fail(v, "the function does not take its memory");
			else if (vduse_buffers_mapped(v))
				run(v);
			break;
		default:
			break;
		}
	} while (v->phase != before);
}

/* ---- the thread ---- */

struct wait {
	struct pollfd fd[2 + 2 * VFN_VDUSE_QUEUES];
	nfds_t n;
};

static void
wait_for(struct wait *w, int fd)
{
	w->fd[w->n++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

/* An interrupt, or a kick that is to be seen here. True: there was something. */
static bool
taken(const struct wait *w, int fd)
{
	eventfd_t count;
	nfds_t i;

	for (i = 0; i < w->n; i++)
		if (w->fd[i].fd == fd && w->fd[i].revents != 0)
			return eventfd_read(fd, &count) == 0;
	return false;
}

static void
one_round(struct vfn_vduse *v)
{
	enum phase phase = v->phase;
	struct wait w = {.n = 0};
	bool kicked = false;
	uint32_t i;
	int ms;

	wait_for(&w, v->wake_fd);
	/* A device that the kernel has given up on says so without end. */
	wait_for(&w, phase == BROKEN ? -1 : v->fd);
	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		if (phase == KICK)
			wait_for(&w, v->queue[i].kick_fd);
		if (v->event_irqs)
			wait_for(&w, v->queue[i].irq_fd);
	}
	ms = phase == CONFIRM || phase == QUEUES ? LOOK_MS : -1;
	if (poll(w.fd, w.n, ms) < 0)
		return;
	for (i = 0; i < VFN_VDUSE_QUEUES; i++) {
		if (v->event_irqs && taken(&w, v->queue[i].irq_fd))
			vduse_inject(&v->queue[i].call);
		if (phase == KICK)
			kicked |= taken(&w, v->queue[i].kick_fd);
	}
	if (w.fd[1].revents & POLLIN)
		messages(v);
	v->owner->lock(v->data);
	if (w.fd[1].revents & (POLLERR | POLLHUP)) {
		fail(v, "the kernel has given up on us, who did not answer in time");
		v->phase = BROKEN;
	}
	step(v, kicked);
	v->owner->unlock(v->data);
}

void *
vduse_thread(void *vduse)
{
	struct vfn_vduse *v = vduse;

	vfn_guard_unblock();
	while (!__atomic_load_n(&v->quit, __ATOMIC_ACQUIRE))
		one_round(v);
	return NULL;
}
