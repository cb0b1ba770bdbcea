/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The client: a connection, a command and the wait for its reply. Any thread, one at a time. */

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vfu_private.h"

/* A server that takes less would make thousands of messages of one access. */
#define LEAST_XFER 64

/* ---- with the lock ---- */

/*
 * Only our direction: the server's hanging up is what tells that it has let go of everything, see
 * vfu_client_fd().
 */
static int
dead(struct vfu_client *client, int ret)
{
	client->dead = true;
	shutdown(client->fd, SHUT_WR);
	return ret;
}

/* The server's own command. */
static bool
serve(struct vfu_client *client)
{
	const struct vfu_header h = *client->in.header;
	struct vfu_dma_access a = {0};
	struct vfu_out out = {.header = {h.id, h.command, 0, VFU_TYPE_REPLY, 0}};
	size_t len = vfu_payload_len(&client->in);
	const uint8_t *payload = vfu_payload(&client->in);
	int ret = -EINVAL;

	if (client->data == NULL)
		client->data = malloc(VFU_MAX_XFER);
	if (client->data == NULL)
		ret = -ENOMEM;
	else if (h.command != VFU_DMA_READ && h.command != VFU_DMA_WRITE)
		ret = -ENOTSUP;
	else if (len >= sizeof(a)) {
		memcpy(&a, payload, sizeof(a));
		len -= sizeof(a);
		if (a.count > VFU_MAX_XFER || len != (h.command == VFU_DMA_WRITE ? a.count : 0))
			ret = -EINVAL;
		else if (client->ops == NULL)
			ret = -ENOTSUP;
		else if (h.command == VFU_DMA_READ)
			ret = client->ops->dma_read == NULL ?
				-ENOTSUP :
				client->ops->dma_read(
					client->priv, a.address, client->data, a.count);
		else
			ret = client->ops->dma_write == NULL ?
				-ENOTSUP :
				client->ops->dma_write(
					client->priv, a.address, payload + sizeof(a), a.count);
	}
	if (h.flags & VFU_NO_REPLY)
		return true;
	if (ret < 0) {
		out.header.flags |= VFU_ERROR;
		out.header.error = -ret;
	} else {
		out.head = &a;
		out.head_len = sizeof(a);
		out.data = client->data;
		out.data_len = h.command == VFU_DMA_READ ? a.count : 0;
	}
	return vfu_send(client->fd, &out);
}

/* How long this reply may take. */
static uint64_t
patience_left(struct vfu_client *client, uint64_t now)
{
	struct vfu_patience *p = client->patience;
	uint64_t all = UINT64_C(1) * VFU_PATIENCE * client->timeout_ms;
	uint64_t forgotten = (now - p->at_ms) / VFU_FORGET, left;

	p->spent_ms -= p->spent_ms < forgotten ? p->spent_ms : forgotten;
	p->at_ms += forgotten * VFU_FORGET;
	left = p->spent_ms < all ? all - p->spent_ms : 0;
	left = left > VFU_QUICK_MS ? left : VFU_QUICK_MS;
	return left < client->timeout_ms ? left : client->timeout_ms;
}

/* The next message that is a reply. */
static int
reply_wait(struct vfu_client *client, uint64_t deadline)
{
	for (;;) {
		/* Also of a server that sends all the time, but no reply. */
		if (vfu_now_ms() >= deadline)
			return dead(client, -ETIMEDOUT);
		if (client->in.closer != NULL &&
			vfn_closer_waiting(client->in.closer) > VFU_MAX_CLOSING)
			return dead(client, -EPIPE);
		switch (vfu_receive(client->fd, &client->in)) {
		case VFU_IO_WAIT:
			vfu_wait(client->fd, POLLIN, deadline);
			continue;
		case VFU_IO_DONE:
			break;
		default:
			return dead(client, -EPIPE);
		}
		if ((client->in.header->flags & VFU_TYPE_MASK) == VFU_TYPE_REPLY)
			return 0;
		if ((client->in.header->flags & VFU_TYPE_MASK) != VFU_TYPE_COMMAND ||
			!serve(client))
			return dead(client, -EPIPE);
		vfu_in_reset(&client->in);
	}
}

static int
reply_take(struct vfu_client *client, struct vfu_call *c)
{
	const struct vfu_header *h = client->in.header;
	const uint8_t *payload = vfu_payload(&client->in);
	size_t len = vfu_payload_len(&client->in);
	unsigned int i;

	if (h->id != client->id || h->command != c->command || client->in.surplus)
		return dead(client, -EPIPE);
	if (h->flags & VFU_ERROR)
		return h->error > 0 && h->error < 4096 ? -(int)h->error : -EIO;
	if (len < c->reply_len || len - c->reply_len > c->reply_room ||
		client->in.nb_fds > c->nb_reply_fds)
		return dead(client, -EPIPE);
	if (c->reply_len > 0)
		memcpy(c->reply, payload, c->reply_len);
	c->reply_extra = len - c->reply_len;
	if (c->reply_extra > 0)
		memcpy(c->reply_data, payload + c->reply_len, c->reply_extra);
	/* They are the caller's now. */
	for (i = 0; i < client->in.nb_fds; i++)
		c->reply_fds[i] = client->in.fds[i];
	c->nb_reply_fds = client->in.nb_fds;
	client->in.nb_fds = 0;
	return 0;
}

static int
call_locked(struct vfu_client *client, struct vfu_call *c)
{
	struct vfu_out out = {
		.header = {.id = ++client->id, .command = c->command, .flags = VFU_TYPE_COMMAND},
		.head = c->head,
		.head_len = c->head_len,
		.data = c->data,
		.data_len = c->data_len,
		.fds = c->fds,
		.nb_fds = c->nb_fds,
	};
	uint64_t begin = vfu_now_ms(), waited;
	int ret;

	if (client->dead)
		return -EPIPE;
	if (!vfu_send(client->fd, &out))
		return dead(client, -EPIPE);
	ret = reply_wait(client, begin + patience_left(client, begin));
	waited = vfu_now_ms() - begin;
	client->patience->spent_ms += waited > VFU_QUICK_MS ? waited : 0;
	if (ret == 0)
		ret = reply_take(client, c);
	vfu_in_reset(&client->in);
	return ret;
}

int
vfu_call(struct vfu_client *client, struct vfu_call *c)
{
	int ret;

	pthread_mutex_lock(&client->lock);
	ret = call_locked(client, c);
	pthread_mutex_unlock(&client->lock);
	return ret;
}

int
vfu_nonsense(struct vfu_client *client)
{
	pthread_mutex_lock(&client->lock);
	dead(client, 0);
	pthread_mutex_unlock(&client->lock);
	return -EPIPE;
}

/* ---- a connection ---- */

static int
agree(struct vfu_client *client)
{
	const struct vfu_version mine = {VFU_MAJOR, VFU_MINOR};
	char *json = vfu_version_print(NULL), theirs[4096];
	struct vfu_version reply;
	struct vfu_call c = {
		.command = VFU_VERSION,
		.head = &mine,
		.head_len = sizeof(mine),
		.data = json,
		.data_len = json != NULL ? strlen(json) + 1 : 0,
		.reply = &reply,
		.reply_len = sizeof(reply),
		.reply_data = theirs,
		.reply_room = sizeof(theirs),
	};
	int ret = json != NULL ? vfu_call(client, &c) : -ENOMEM;

	free(json);
	/* A server that does not like the version hangs up. */
	if (ret == -EPIPE)
		return -EPROTO;
	if (ret < 0)
		return ret;
	if (reply.major != VFU_MAJOR || reply.minor > VFU_MINOR ||
		vfu_version_parse(theirs, c.reply_extra, &client->peer) != NULL ||
		client->peer.max_xfer < LEAST_XFER)
		return -EPROTO;
	return 0;
}

/* A server that has no room for another connection at the moment has it soon. */
static int
connect_to(const char *path, unsigned int timeout_ms)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	int fd, ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ||
		connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = errno == EAGAIN ? -ETIMEDOUT : -errno;
		close(fd);
		return ret;
	}
	return fd;
}

int
vfu_client_connect(const char *path, const struct vfu_client_ops *ops, void *priv,
	unsigned int timeout_ms, struct vfu_patience *patience, struct vfu_client **client)
{
	struct vfu_client *c = calloc(1, sizeof(*c));
	int ret;

	if (c == NULL)
		return -ENOMEM;
	c->fd = -1;
	c->ops = ops;
	c->priv = priv;
	c->timeout_ms = timeout_ms;
	c->patience = patience != NULL ? patience : &c->own;
	pthread_mutex_init(&c->lock, NULL);
	ret = vfu_in_init(&c->in, c->patience->closer) ? connect_to(path, timeout_ms) : -ENOMEM;
	c->fd = ret;
	if (ret >= 0)
		ret = agree(c);
	if (ret < 0) {
		vfu_client_close(c);
		return ret;
	}
	*client = c;
	return 0;
}

void
vfu_client_close(struct vfu_client *client)
{
	if (client == NULL)
		return;
	vfu_in_free(&client->in);
	if (client->fd >= 0)
		vfu_hang_up(client->fd, client->patience->closer);
	free(client->data);
	pthread_mutex_destroy(&client->lock);
	free(client);
}

int
vfu_client_fd(const struct vfu_client *client)
{
	return client->fd;
}
