/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Front-ends that hand over memory before any features, which no decent one does: until then a
 * driver has not heard of the connection and cannot keep librte_vhost out of trouble. On
 * librte_vhost's event thread, for each message until the driver has hooks of its own.
 */

#include <rte_vhost.h>

#include "app.h"

/* vhost-user protocol, "Front-end message types" */
#define SET_MEM_TABLE	5
#define SET_INFLIGHT_FD 32

/* As it came over the socket. */
struct message {
	uint32_t request, flags, size;
	union {
		uint32_t nb_regions;
		struct {
			uint64_t size, offset;
			uint16_t queues, queue_size;
		} inflight;
	};
} __attribute__((packed));

static enum rte_vhost_msg_result
before_features(int vid, void *data)
{
	struct message *msg = data;
	uint64_t features = 0;

	if (rte_vhost_get_negotiated_features(vid, &features) == 0 && features != 0)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	/* librte_vhost closes the descriptors of what it refuses itself. */
	if (msg->request == SET_MEM_TABLE)
		msg->nb_regions = UINT32_MAX;
	else if (msg->request == SET_INFLIGHT_FD)
		msg->inflight.queues = 0;
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

int
early_watch(int vid)
{
	static const struct rte_vhost_user_extern_ops ops = {.pre_msg_handle = before_features};

	return rte_vhost_extern_callback_register(vid, &ops, NULL);
}
