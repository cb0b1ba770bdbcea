/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Watches the messages of a connection go by, which tells what no operation of a vDPA driver
 * does: whether librte_vhost has a memory table. After one that it refused it has none, but
 * calls dev_conf all the same, and everything that asks it for memory ends the process
 * (rte_vhost_get_mem_table() dereferences NULL). The rings' addresses are no help: they stay, and
 * another connection's memory may be mapped there by then.
 *
 * On librte_vhost's message thread.
 */

#include <errno.h>
#include <string.h>

#include <rte_common.h>

#include "vfn_drv.h"
#include "vfn_fault.h"

#define SET_MEM_TABLE 5 /* vhost-user protocol, "Front-end message types" */

static void
see(int vid, const void *msg, bool done)
{
	struct vfn_dev *dev = vfn_dev_by_vid(vid);
	struct vfn_guest *guest;
	uint32_t request;

	if (dev == NULL)
		return;
	memcpy(&request, msg, sizeof(request));
	pthread_mutex_lock(&dev->lock);
	guest = vfn_conf_guest(dev, vid);
	if (guest != NULL) {
		/* librte_vhost reads rings and the in-flight region while it maps them. */
		vfn_fault_guard(done ? NULL : &guest->lost);
		if (request == SET_MEM_TABLE) {
			guest->memory = done;
			guest->told = false;
		}
	}
	pthread_mutex_unlock(&dev->lock);
}

static enum rte_vhost_msg_result
before(int vid, void *msg)
{
	see(vid, msg, false);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

/* Not called after a message that was refused. */
static enum rte_vhost_msg_result
after(int vid, void *msg)
{
	see(vid, msg, true);
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
