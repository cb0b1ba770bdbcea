/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The messages of a connection, looked at before librte_vhost acts on them. Which the driver knows
 * better it answers itself: librte_vhost never has a dirty log and never an in-flight region. It
 * would follow both to places that are no longer, or never were, the front-end's. What was not
 * offered is refused, and rings that the device lacks are left alone.
 *
 * What goes by also tells what no operation of a vDPA driver does: whether librte_vhost has a
 * memory table. After one that it refused it has none, but calls dev_conf all the same, and
 * everything that asks it for memory ends the process (rte_vhost_get_mem_table() dereferences
 * NULL). And RESET_OWNER calls dev_cleanup, like the end of a connection.
 *
 * On librte_vhost's message thread, which is on guard from before librte_vhost handles a message
 * until after.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_version.h>

#include "vfn_drv.h"
#include "vfn_guard.h"
#include "vfn_vu_msg.h"

/*
 * librte_vhost found memory of a connection cut off, by vid. Never freed: a thread may be left on
 * guard after a message that was refused, with the connection gone.
 */
static bool lost[RTE_MAX_VHOST_DEVICE];

/* Room for the payload of any message, which differs by release. */
static size_t
payload_room(void)
{
	const uint32_t version = RTE_VERSION_NUM(rte_version_year(), rte_version_month(), 0, 0);

	return version >= RTE_VERSION_NUM(25, 3, 0, 0) ? 1072 : 632;
}

/* NULL if there is nothing like descriptors where they should be. */
static struct vfn_msg_fds *
msg_fds(struct vfn_vu_msg *msg)
{
	struct vfn_msg_fds *fds =
		(void *)((uint8_t *)msg + offsetof(struct vfn_vu_msg, u64) + payload_room());
	static bool told;
	int i = 0;

	if (fds->n >= 0 && fds->n <= VFN_MSG_FDS)
		for (; i < VFN_MSG_FDS; i++)
			if (i < fds->n ? fcntl(fds->fd[i], F_GETFD) < 0 : fds->fd[i] != -1)
				break;
	if (i == VFN_MSG_FDS)
		return fds;
	if (!told)
		DRV_LOG(ERR,
			"messages of DPDK %s have another layout: no dirty logs, no in-flight "
			"regions",
			rte_version());
	told = true;
	return NULL;
}

/* librte_vhost leaves them to whom has handled the message. */
static void
msg_close(struct vfn_vu_msg *msg)
{
	struct vfn_msg_fds *fds = msg_fds(msg);
	int i;

	for (i = 0; fds != NULL && i < fds->n; i++) {
		close(fds->fd[i]);
		fds->fd[i] = -1;
	}
	if (fds != NULL)
		fds->n = 0;
}

static enum rte_vhost_msg_result
refuse(struct vfn_vu_msg *msg)
{
	msg_close(msg);
	return RTE_VHOST_MSG_RESULT_ERR;
}

/* The only descriptor of a message that has one, or -1. */
static int
msg_fd(struct vfn_vu_msg *msg)
{
	struct vfn_msg_fds *fds = msg_fds(msg);

	return fds != NULL && fds->n == 1 ? fds->fd[0] : -1;
}

static enum rte_vhost_msg_result
dirty_base(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	int fd = msg_fd(msg);

	if (fd < 0 || msg->size != sizeof(msg->log) ||
		vfn_lm_set_dirty(dev, guest, fd, msg->log.offset, msg->log.size) < 0)
		return refuse(msg);
	msg_close(msg);
	/* QEMU expects an answer, and nothing in it. */
	msg->size = 0;
	return RTE_VHOST_MSG_RESULT_REPLY;
}

static bool
inflight_size_ok(const struct vfn_vu_msg *msg)
{
	/* 20 bytes in the protocol; QEMU and librte_vhost send what C makes of it. */
	return msg->size == sizeof(msg->inflight) || msg->size == sizeof(msg->inflight) + 4;
}

static enum rte_vhost_msg_result
get_inflight(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	struct vfn_msg_fds *fds = msg_fds(msg);
	uint64_t size;
	int fd;

	if (fds == NULL || fds->n != 0 || !inflight_size_ok(msg))
		return refuse(msg);
	fd = vfn_inflight_create(dev, guest, msg->inflight.queues, msg->inflight.entries, &size);
	if (fd < 0)
		return refuse(msg);
	/* It is the front-end's, who gives it back with SET_INFLIGHT_FD; closed once it is sent. */
	fds->fd[0] = fd;
	fds->n = 1;
	msg->inflight.size = size;
	msg->inflight.offset = 0;
	return RTE_VHOST_MSG_RESULT_REPLY;
}

static enum rte_vhost_msg_result
set_inflight(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	int fd = msg_fd(msg);

	if (fd < 0 || !inflight_size_ok(msg) ||
		vfn_inflight_set(dev, guest, fd, msg->inflight.offset, msg->inflight.size,
			msg->inflight.queues, msg->inflight.entries) < 0)
		return refuse(msg);
	msg_close(msg);
	return RTE_VHOST_MSG_RESULT_OK;
}

static enum rte_vhost_msg_result
mem_table(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	struct vfn_msg_fds *fds = msg_fds(msg);
	int i;

	guest->memory = guest->told = false;
	/* librte_vhost reads rings there before anybody else can look. */
	for (i = 0; fds != NULL && i < fds->n; i++)
		if (!vfn_map_allowed(fds->fd[i]))
			return refuse(msg);
	/* Before the old memory goes librte_vhost closes only what it has configured itself. */
	if (dev->class->conf_by_call && guest->conf)
		vfn_life_stop(dev, guest->vid);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

/* Of what librte_vhost refuses nobody would hear. */
static enum rte_vhost_msg_result
reset_owner(struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	struct vfn_msg_fds *fds = msg_fds(msg);

	if (fds == NULL || fds->n != 0)
		return refuse(msg);
	guest->resetting = true;
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

/* librte_vhost closes what it gets. */
static void
error_fd(struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	int fd = msg_fd(msg), *mine = &guest->error_fd[msg->u64 & UINT8_MAX];

	if (*mine >= 0)
		close(*mine);
	*mine = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
}

/* Front-ends may set up more rings than the device has; they stay off. */
static enum rte_vhost_msg_result
ring(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg, uint32_t index)
{
	/* What comes right behind those for data may be the control queue. */
	if (index >= vfn_nb_rings(dev)) {
		if (msg->request == SET_VRING_ENABLE && msg->state.num != 0)
			DEV_LOG(WARNING, dev, "queue %u is ignored, there are %u %s", index,
				dev->max_pairs, dev->class->unit);
		msg_close(msg);
		return RTE_VHOST_MSG_RESULT_OK;
	}
	if (msg->request == SET_VRING_ERR)
		error_fd(guest, msg);
	/* It is said where the ring begins. */
	if (msg->request == SET_VRING_BASE)
		guest->left[index] = VFN_RING_KEPT;
	if ((msg->request == SET_VRING_BASE || msg->request == SET_VRING_ADDR) &&
		!vfn_iommu_ring(dev, guest, msg))
		return refuse(msg);
	if (msg->request == SET_VRING_ADDR)
		vfn_memory_ring(dev, guest, msg);
	/* It has in-flight regions from before we were there, and would look at them now. */
	if (msg->request == SET_VRING_KICK && guest->barred)
		return refuse(msg);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

/* Beside what librte_vhost offers there is what the function's control queue does. */
static enum rte_vhost_msg_result
get_features(struct vfn_dev *dev, struct vfn_vu_msg *msg, uint64_t library)
{
	struct vfn_msg_fds *fds = msg_fds(msg);

	if (fds == NULL || fds->n != 0)
		return refuse(msg);
	msg->u64 = library | vfn_ctrl_offer(dev, library);
	msg->size = sizeof(msg->u64);
	return RTE_VHOST_MSG_RESULT_REPLY;
}

/* Of those librte_vhost hears nothing, and refuses the rest if it has to. */
static enum rte_vhost_msg_result
set_features(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg, uint64_t library)
{
	uint64_t own = msg->u64 & vfn_ctrl_offer(dev, library);

	if (dev->guest == guest && dev->state == VFN_RUNNING && own != guest->own_features)
		return refuse(msg);
	msg->u64 &= ~own;
	guest->own_asked = own;
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static enum rte_vhost_msg_result
guest_before(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg, uint64_t library)
{
	switch (msg->request) {
	case GET_FEATURES:
		return get_features(dev, msg, library);
	case SET_FEATURES:
		return set_features(dev, guest, msg, library);
	case RESET_OWNER:
		return reset_owner(guest, msg);
	case SET_MEM_TABLE:
		return mem_table(dev, guest, msg);
	case SET_LOG_BASE:
		return dirty_base(dev, guest, msg);
	case GET_INFLIGHT_FD:
		return get_inflight(dev, guest, msg);
	case SET_INFLIGHT_FD:
		return set_inflight(dev, guest, msg);
	case SET_VRING_NUM:
	case SET_VRING_ADDR:
	case SET_VRING_BASE:
	case SET_VRING_ENABLE:
		return ring(dev, guest, msg, msg->state.index);
	case GET_VRING_BASE:
		if (msg->state.index < vfn_nb_rings(dev))
			vfn_iommu_ring(dev, guest, msg);
		break;
	case SET_BACKEND_REQ_FD:
		vfn_iommu_back(dev, guest, msg_fd(msg));
		break;
	case IOTLB_MSG:
		return vfn_iommu_message(dev, guest, msg) < 0 ? refuse(msg) :
								RTE_VHOST_MSG_RESULT_OK;
	case SET_VRING_KICK:
	case SET_VRING_CALL:
	case SET_VRING_ERR:
		return ring(dev, guest, msg, msg->u64 & UINT8_MAX);
	case GET_CONFIG:
	case SET_CONFIG:
	case SET_STATUS:
	case GET_STATUS:
		break;
	default:
		/* The rest of what vhost-user began with; all else was not offered. */
		if (msg->request < GET_FEATURES || msg->request > SET_BACKEND_REQ_FD)
			return refuse(msg);
	}
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static void
guest_after(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg)
{
	if (msg->request == SET_MEM_TABLE) {
		guest->memory = true;
		vfn_life_late(dev, guest);
	} else if (msg->request == SET_FEATURES) {
		guest->own_features = guest->own_asked;
	} else if (msg->request == GET_INFLIGHT_FD) {
		msg_close(msg);
	}
	guest->resetting = false;
}

/* What librte_vhost offers; it asks the device for that, so no lock is held. 0: nothing. */
static uint64_t
library_features(int vid, const struct vfn_vu_msg *msg)
{
	uint64_t features = 0;
	char path[PATH_MAX];

	if ((msg->request != GET_FEATURES && msg->request != SET_FEATURES) ||
		rte_vhost_get_ifname(vid, path, sizeof(path)) < 0 ||
		rte_vhost_driver_get_features(path, &features) < 0)
		return 0;
	return features;
}

static enum rte_vhost_msg_result
before(int vid, void *msg)
{
	enum rte_vhost_msg_result result = RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	const uint64_t library = library_features(vid, msg);
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	struct vfn_guest *guest;

	if (dev == NULL)
		return result;
	guest = vfn_life_guest(dev, vid);
	if (guest != NULL) {
		result = guest_before(dev, guest, msg, library);
		/* librte_vhost reads rings while it maps them. */
		vfn_guard(&lost[vid]);
	}
	vfn_dev_release(dev);
	return result;
}

/* Not called after a message that was refused. */
static enum rte_vhost_msg_result
after(int vid, void *msg)
{
	struct vfn_dev *dev = vfn_dev_lock_by_vid(vid);
	struct vfn_guest *guest;

	vfn_guard(NULL);
	if (dev == NULL)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	guest = vfn_life_guest(dev, vid);
	if (guest != NULL)
		guest_after(dev, guest, msg);
	vfn_dev_release(dev);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

/* From the next message of the connection on, to its end. */
int
vfn_message_start(struct vfn_guest *guest)
{
	static const struct rte_vhost_user_extern_ops ops = {
		.pre_msg_handle = before,
		.post_msg_handle = after,
	};
	struct rte_vhost_ring_inflight ring_inflight;
	uint16_t queue;

	if (guest->vid < 0 || guest->vid >= RTE_MAX_VHOST_DEVICE)
		return -EINVAL;
	vfn_message_forgive(guest);
	/* Of every ring that there may be: not only the device's are looked at. */
	for (queue = 0; queue <= UINT8_MAX && !guest->barred; queue++)
		guest->barred =
			rte_vhost_get_vhost_ring_inflight(guest->vid, queue, &ring_inflight) == 0;
	return rte_vhost_extern_callback_register(guest->vid, &ops, NULL);
}

/* librte_vhost has none of the connection's memory now. */
void
vfn_message_forgive(struct vfn_guest *guest)
{
	__atomic_store_n(&lost[guest->vid], false, __ATOMIC_RELAXED);
}

/* May the guest's memory be asked for? If not, the log says so once for every table. */
bool
vfn_message_memory(struct vfn_dev *dev, struct vfn_guest *guest)
{
	bool cut = __atomic_load_n(&lost[guest->vid], __ATOMIC_ACQUIRE);

	if (guest->memory && !cut)
		return true;
	if (!guest->told)
		DEV_LOG(ERR, dev, "%s",
			cut ? "a file of the guest's memory was cut off: it must connect again" :
			      "librte_vhost has no memory table: it refused the last one, or "
			      "got it before the features");
	guest->told = true;
	return false;
}
