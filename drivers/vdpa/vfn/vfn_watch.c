/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Watches the messages of a connection go by, which tells what no operation of a vDPA driver
 * does: whether librte_vhost has a memory table. After one that it refused it has none, but
 * calls dev_conf all the same, and everything that asks it for memory ends the process
 * (rte_vhost_get_mem_table() dereferences NULL). The rings' addresses are no help: they stay, and
 * another connection's memory may be mapped there by then. In-flight regions that are too short,
 * or gone, it follows out of its memory too, and a dirty log that is not at the start of its file
 * it looks for in memory of others: such messages are mended or refused here.
 *
 * On librte_vhost's message thread.
 */

#include <errno.h>
#include <string.h>

#include <rte_common.h>

#include "vfn_drv.h"
#include "vfn_fault.h"

/* vhost-user protocol, "Front-end message types" */
enum {
	SET_MEM_TABLE = 5,
	SET_LOG_BASE = 6,
	SET_VRING_KICK = 12,
	GET_INFLIGHT_FD = 31,
	SET_INFLIGHT_FD = 32,
};

#define NO_FD (1u << 8) /* in the ring number of SET_VRING_KICK */

/* As it came over the socket. */
struct message {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint64_t size, offset;
			uint16_t queues, queue_size;
		} inflight;
		struct {
			uint64_t size, offset;
		} log;
	};
} __attribute__((packed));

/*
 * librte_vhost does not compare the region's size with what it is told to be in there, and rings
 * that a second region leaves out keep pointing into the first, which it unmaps. Where the file
 * ends early there is a bus error, which does no harm.
 */
static void
mend_inflight(struct vfn_guest *guest, struct message *msg)
{
	uint64_t ring;

	msg->inflight.queues = RTE_MAX(msg->inflight.queues, guest->inflight);
	/* A packed ring's; a split one takes less. */
	ring = RTE_ALIGN_MUL_CEIL(sizeof(struct rte_vhost_inflight_info_packed) +
			msg->inflight.queue_size * sizeof(struct rte_vhost_inflight_desc_packed),
		64);
	msg->inflight.size = RTE_MAX(msg->inflight.size, msg->inflight.queues * ring);
	guest->inflight = msg->inflight.queues;
}

static int
guest_before(struct vfn_guest *guest, struct message *msg)
{
	uint64_t features = 0;

	switch (msg->request) {
	case SET_MEM_TABLE:
		guest->memory = guest->told = false;
		break;
	case SET_LOG_BASE:
		/* It counts the offset twice. Of a wrong size it closes the descriptor and refuses.
		 */
		if (msg->log.offset != 0) {
			DRV_LOG(ERR, "a dirty log at 0x%" PRIx64 " of its file is refused",
				msg->log.offset);
			msg->size = 0;
		}
		break;
	case GET_INFLIGHT_FD:
		/* It unmaps the region that the rings point into. */
		if (guest->inflight > 0)
			return -EINVAL;
		break;
	case SET_INFLIGHT_FD:
		guest->inflight_lost = true;
		mend_inflight(guest, msg);
		break;
	case SET_VRING_KICK:
		/* It looks at the ring and at its in-flight region without asking whether. */
		rte_vhost_get_negotiated_protocol_features(guest->vid, &features);
		if (!(features & UINT64_C(1) << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) ||
			guest->inflight == 0 || (guest->memory && !guest->inflight_lost))
			break;
		/* So that it closes the descriptor and refuses. */
		if (msg->u64 & NO_FD)
			return -EINVAL;
		msg->u64 |= NO_FD;
		break;
	}
	return 0;
}

static void
guest_after(struct vfn_guest *guest, const struct message *msg)
{
	if (msg->request == SET_MEM_TABLE)
		guest->memory = true;
	else if (msg->request == SET_INFLIGHT_FD)
		guest->inflight_lost = false;
}

static enum rte_vhost_msg_result
before(int vid, void *msg)
{
	enum rte_vhost_msg_result result = RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	struct vfn_dev *dev = vfn_dev_by_vid(vid);
	struct vfn_guest *guest;

	if (dev == NULL)
		return result;
	pthread_mutex_lock(&dev->lock);
	guest = vfn_conf_guest(dev, vid);
	if (guest != NULL) {
		/* librte_vhost reads rings and the in-flight region while it maps them. */
		vfn_fault_guard(&guest->lost);
		if (guest_before(guest, msg) < 0)
			result = RTE_VHOST_MSG_RESULT_ERR;
	}
	pthread_mutex_unlock(&dev->lock);
	return result;
}

/* Not called after a message that was refused. */
static enum rte_vhost_msg_result
after(int vid, void *msg)
{
	struct vfn_dev *dev = vfn_dev_by_vid(vid);
	struct vfn_guest *guest;

	if (dev == NULL)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	pthread_mutex_lock(&dev->lock);
	guest = vfn_conf_guest(dev, vid);
	if (guest != NULL) {
		guest_after(guest, msg);
		vfn_fault_guard(NULL);
	}
	pthread_mutex_unlock(&dev->lock);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

/* From the next message of the connection on. */
int
vfn_watch_start(int vid)
{
	static const struct rte_vhost_user_extern_ops ops = {
		.pre_msg_handle = before,
		.post_msg_handle = after,
	};

	return rte_vhost_extern_callback_register(vid, &ops, NULL);
}

/* Before the connection is forgotten. */
void
vfn_watch_stop(void)
{
	vfn_fault_guard(NULL);
}

/* May the guest's memory be asked for? If not, the log says so once for every table. */
bool
vfn_watch_memory(struct vfn_dev *dev, struct vfn_guest *guest)
{
	if (guest->memory && !guest->lost)
		return true;
	if (!guest->told)
		DEV_LOG(ERR, dev, "%s",
			guest->lost ?
				"a file of the guest's memory was cut off: it must connect "
				"again" :
				"librte_vhost has no memory table: it refused the last one, or "
				"got it before the features");
	guest->told = true;
	return false;
}
