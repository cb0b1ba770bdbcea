/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the server does for "VFIO_USER_DEVICE_FEATURE" and migration data. */

#include "vfu_private.h"

/* Data of a feature behind its header, in a reply. */
static int
reply_with(struct vfu_server *server, const struct vfu_feature *asked, const void *data, size_t len)
{
	struct vfu_feature mine = {sizeof(mine) + len, asked->flags};

	memcpy(server->reply, &mine, sizeof(mine));
	server->reply_len = sizeof(mine);
	/* "Message sizes": the client asks again, with room for all of it. */
	if (asked->argsz < mine.argsz)
		return 0;
	if (data != NULL)
		memcpy(server->reply + sizeof(mine), data, len);
	server->reply_len += len;
	return 0;
}

/*
 * "Direct State Transitions", and the others made of them: without PRE_COPY everything goes through
 * STOP.
 */
static int
set_state(struct vfu_server *server, uint32_t to)
{
	enum vfio_device_mig_state next;
	int ret;

	if (to != VFIO_DEVICE_STATE_STOP && to != VFIO_DEVICE_STATE_RUNNING &&
		to != VFIO_DEVICE_STATE_STOP_COPY && to != VFIO_DEVICE_STATE_RESUMING)
		return vfu_refuse(server, -EINVAL, "there is no such state");
	if (server->state == VFIO_DEVICE_STATE_ERROR)
		return vfu_refuse(server, -EIO, "only a reset helps in the state ERROR");
	while (server->state != to) {
		next = server->state == VFIO_DEVICE_STATE_STOP ? to : VFIO_DEVICE_STATE_STOP;
		ret = server->device.ops->migrate(server->device.priv, server->state, next);
		if (ret == -EIO)
			server->state = VFIO_DEVICE_STATE_ERROR;
		if (ret < 0)
			return ret;
		server->state = next;
	}
	return 0;
}

static int
mig_state(struct vfu_server *server, const struct vfu_feature *f, size_t len)
{
	struct vfu_mig_state state;
	int ret;

	if (f->flags & VFIO_DEVICE_FEATURE_GET) {
		state = (struct vfu_mig_state){.device_state = server->state};
		return reply_with(server, f, &state, sizeof(state));
	}
	if (len != sizeof(state))
		return vfu_refuse(server, -EINVAL, "its size is wrong");
	memcpy(&state, f + 1, sizeof(state));
	ret = set_state(server, state.device_state);
	return ret < 0 ? ret : reply_with(server, f, &state, sizeof(state));
}

static int
log_start(struct vfu_server *server, const struct vfu_feature *f, size_t len)
{
	const struct vfu_log_control *c = (const struct vfu_log_control *)(f + 1);
	const struct vfu_log_range *range = (const struct vfu_log_range *)(c + 1);
	struct vfu_log_control mine;
	uint32_t i;
	int ret;

	if (len < sizeof(*c) || len - sizeof(*c) != c->num_ranges * sizeof(*range) ||
		c->num_ranges > VFU_MAX_MAPS)
		return vfu_refuse(server, -EINVAL, "its size is wrong");
	for (i = 0; i < c->num_ranges; i++)
		if (range[i].length == 0 || range[i].iova + (range[i].length - 1) < range[i].iova)
			return vfu_refuse(server, -EINVAL, "a range is empty, or does not end");
	if (c->page_size == 0 || (c->page_size & (c->page_size - 1)) != 0)
		return vfu_refuse(server, -EINVAL, "its page size is no power of two");
	if (server->logging)
		return vfu_refuse(server, -EINVAL, "it logs already");
	mine = *c;
	ret = server->device.ops->log_start(
		server->device.priv, &mine.page_size, range, c->num_ranges);
	if (ret < 0)
		return ret;
	server->logging = true;
	reply_with(server, f, c, len);
	if (server->reply_len > sizeof(*f))
		memcpy(server->reply + sizeof(*f), &mine, sizeof(mine));
	return 0;
}

static int
log_stop(struct vfu_server *server, const struct vfu_feature *f, size_t len)
{
	int ret;

	if (!server->logging || len != 0)
		return vfu_refuse(
			server, -EINVAL, len != 0 ? "its size is wrong" : "it does not log");
	ret = server->device.ops->log_stop(server->device.priv);
	if (ret < 0)
		return ret;
	server->logging = false;
	return reply_with(server, f, NULL, 0);
}

static int
log_report(struct vfu_server *server, const struct vfu_feature *f, size_t len)
{
	struct vfu_feature mine = *f;
	struct vfu_log_report r;
	uint8_t *at = server->reply + sizeof(mine) + sizeof(r);
	uint64_t pages, bytes;
	int ret;

	if (len < sizeof(r))
		return vfu_refuse(server, -EINVAL, "its size is wrong");
	memcpy(&r, f + 1, sizeof(r));
	if (!server->logging)
		return vfu_refuse(server, -EINVAL, "it does not log");
	if (r.page_size == 0 || (r.page_size & (r.page_size - 1)) != 0 || r.length == 0 ||
		r.iova + (r.length - 1) < r.iova)
		return vfu_refuse(server, -EINVAL, "its page size or range is wrong");
	pages = (r.length - 1) / r.page_size + 1;
	bytes = (pages + 63) / 64 * 8;
	if (pages > VFU_MAX_XFER * UINT64_C(8))
		return vfu_refuse(server, -EINVAL, "it is more than a message takes");
	mine.argsz = sizeof(mine) + sizeof(r) + bytes;
	memcpy(server->reply, &mine, sizeof(mine));
	server->reply_len = sizeof(mine);
	if (f->argsz < mine.argsz)
		return 0;
	memcpy(server->reply + sizeof(mine), &r, sizeof(r));
	memset(at, 0, bytes);
	/* The reply's buffer is aligned, and so is what is behind two structs of 8 and 24 bytes. */
	ret = server->device.ops->log_report(
		server->device.priv, r.iova, r.length, r.page_size, (uint64_t *)(void *)at);
	server->reply_len = mine.argsz;
	return ret;
}

static int
migration(struct vfu_server *server, const struct vfu_feature *f, size_t len)
{
	const uint64_t flags = VFIO_MIGRATION_STOP_COPY;

	(void)len;
	return reply_with(server, f, &flags, sizeof(flags));
}

/* "Device Features" */
int
vfu_do_feature(struct vfu_server *server, const void *payload, size_t len)
{
	static const struct {
		uint32_t can;
		bool logs;
		int (*handle)(struct vfu_server *, const struct vfu_feature *, size_t);
	} features[] = {
		[VFIO_DEVICE_FEATURE_MIGRATION] = {VFIO_DEVICE_FEATURE_GET, false, migration},
		[VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE] = {VFIO_DEVICE_FEATURE_GET |
				VFIO_DEVICE_FEATURE_SET,
			false, mig_state},
		[VFIO_DEVICE_FEATURE_DMA_LOGGING_START] = {VFIO_DEVICE_FEATURE_SET, true,
			log_start},
		[VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP] = {VFIO_DEVICE_FEATURE_SET, true, log_stop},
		[VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT] = {VFIO_DEVICE_FEATURE_GET, true,
			log_report},
	};
	const uint32_t both = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
	const struct vfu_feature *f = payload;
	uint32_t index = f->flags & VFIO_DEVICE_FEATURE_MASK, how = f->flags & both;
	bool probe = f->flags & VFIO_DEVICE_FEATURE_PROBE;

	if ((f->flags & ~(both | VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_MASK)) != 0 ||
		(!probe && (how == 0 || how == both)) || f->argsz < sizeof(*f))
		return vfu_refuse(server, -EINVAL, "argsz or flags are wrong");
	if (index >= sizeof(features) / sizeof(features[0]) || features[index].handle == NULL ||
		(how & ~features[index].can) != 0)
		return vfu_refuse(server, -ENOTSUP, "there is no such feature");
	if (features[index].logs ? server->device.ops->log_start == NULL :
				   server->device.ops->migrate == NULL)
		return -ENOTSUP;
	if (probe) {
		memcpy(server->reply, payload, len);
		server->reply_len = len;
		return 0;
	}
	return features[index].handle(server, f, len - sizeof(*f));
}

/* "VFIO_USER_MIG_DATA_READ" */
int
vfu_do_mig_read(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_mig_data *asked = payload;
	struct vfu_mig_data mine;
	ssize_t n;

	if (server->state != VFIO_DEVICE_STATE_STOP_COPY)
		return vfu_refuse(server, -EINVAL, "the state is not STOP_COPY");
	if (asked->size > VFU_MAX_XFER || asked->argsz < len || asked->size > asked->argsz - len)
		return vfu_refuse(
			server, -EINVAL, "argsz has no room for the answer, or a message");
	n = server->device.ops->state_read(
		server->device.priv, server->reply + sizeof(mine), asked->size);
	if (n < 0)
		return n;
	mine = (struct vfu_mig_data){sizeof(mine) + n, n};
	memcpy(server->reply, &mine, sizeof(mine));
	server->reply_len = mine.argsz;
	return 0;
}

/* "VFIO_USER_MIG_DATA_WRITE" */
int
vfu_do_mig_write(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_mig_data *m = payload;

	if (server->state != VFIO_DEVICE_STATE_RESUMING)
		return vfu_refuse(server, -EINVAL, "the state is not RESUMING");
	if (m->size != len - sizeof(*m))
		return vfu_refuse(server, -EINVAL, "size is not how much data it has");
	return server->device.ops->state_write(server->device.priv, m + 1, m->size);
}
