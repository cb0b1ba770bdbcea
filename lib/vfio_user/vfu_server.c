/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The server: one client at a time, its commands one after the other, and commands of the server's
 * own. On the thread of vfu_serve().
 */

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfu_private.h"

/* Clients that are refused at a time; more have to wait for their refusal. */
#define MAX_REFUSED 4

/* After a connection that could not be accepted, for want of a descriptor or memory. */
#define ACCEPT_PAUSE_MS 100

/* So often is looked whether what a client has sent is closed. */
#define CLOSING_LOOK_MS 100

/* Lines for the operator at once; and one more each second. */
#define MAX_TOLD 32

void
vfu_tell(struct vfu_server *server, bool error, const char *format, ...)
{
	uint64_t now = vfu_now_ms(), seconds = (now - server->told_at) / 1000;
	char text[256];
	va_list args;

	if (server->device.ops->log == NULL)
		return;
	if (seconds > 0) {
		server->told -= seconds < server->told ? seconds : server->told;
		server->told_at = now;
	}
	if (server->told >= MAX_TOLD) {
		server->untold++;
		return;
	}
	server->told++;
	if (server->untold > 0) {
		snprintf(text, sizeof(text), "%u lines were left out", server->untold);
		server->untold = 0;
		server->device.ops->log(server->device.priv, error, text);
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	server->device.ops->log(server->device.priv, error, text);
}

struct vfu_server *
vfu_server_new(const struct vfu_device *device)
{
	struct vfu_server *server = calloc(1, sizeof(*server));

	if (server == NULL)
		return NULL;
	server->device = *device;
	server->fd = -1;
	STAILQ_INIT(&server->early);
	server->map = calloc(VFU_MAX_MAPS, sizeof(*server->map));
	server->reply = malloc(VFU_MAX_PAYLOAD);
	server->closer = vfn_closer_new();
	if (!vfu_in_init(&server->in, server->closer) ||
		!vfu_in_init(&server->answer, server->closer) || server->map == NULL ||
		server->reply == NULL || server->closer == NULL) {
		vfu_server_free(server);
		return NULL;
	}
	return server;
}

void
vfu_server_free(struct vfu_server *server)
{
	if (server == NULL)
		return;
	vfu_in_free(&server->in);
	vfu_in_free(&server->answer);
	free(server->map);
	free(server->reply);
	vfn_closer_free(server->closer);
	free(server);
}

pid_t
vfu_server_client(const struct vfu_server *server)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (server->fd < 0 || getsockopt(server->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return 0;
	return cred.pid;
}

/* ---- messages ---- */

/* "VFIO_USER_VERSION" */
static int
do_version(struct vfu_server *server, const void *payload, size_t len)
{
	const struct vfu_version *version = payload;
	struct vfu_version mine;
	char *json;
	size_t n;

	if (version->major != VFU_MAJOR)
		return vfu_refuse(server, -EPROTO, "it wants another major version");
	server->why = vfu_version_parse(
		(const char *)(version + 1), len - sizeof(*version), &server->peer);
	if (server->why != NULL)
		return -EPROTO;
	json = vfu_version_print(&server->peer);
	if (json == NULL)
		return -ENOMEM;
	mine = (struct vfu_version){
		VFU_MAJOR, version->minor < VFU_MINOR ? version->minor : VFU_MINOR};
	n = strlen(json) + 1;
	memcpy(server->reply, &mine, sizeof(mine));
	memcpy(server->reply + sizeof(mine), json, n);
	server->reply_len = sizeof(mine) + n;
	free(json);
	return 0;
}

static const struct {
	const char *name;
	size_t least; /* bytes of payload */
	bool more;    /* or exactly as many */
	bool fds;
	vfu_handler handle;
} commands[VFU_COMMAND_MAX] = {
	[VFU_VERSION] = {"VERSION", sizeof(struct vfu_version), true, false, do_version},
	[VFU_DMA_MAP] = {"DMA_MAP", sizeof(struct vfu_dma_map), false, true, vfu_do_dma_map},
	[VFU_DMA_UNMAP] = {"DMA_UNMAP", sizeof(struct vfu_dma_unmap), false, false,
		vfu_do_dma_unmap},
	[VFU_DEVICE_GET_INFO] = {"DEVICE_GET_INFO", sizeof(struct vfu_device_info), false, false,
		vfu_do_info},
	[VFU_DEVICE_GET_REGION_INFO] = {"DEVICE_GET_REGION_INFO", sizeof(struct vfio_region_info),
		false, false, vfu_do_region_info},
	[VFU_DEVICE_GET_REGION_IO_FDS] = {"DEVICE_GET_REGION_IO_FDS",
		sizeof(struct vfu_region_io_fds), false, false, vfu_do_region_io_fds},
	[VFU_DEVICE_GET_IRQ_INFO] = {"DEVICE_GET_IRQ_INFO", sizeof(struct vfu_irq_info), false,
		false, vfu_do_irq_info},
	[VFU_DEVICE_SET_IRQS] = {"DEVICE_SET_IRQS", sizeof(struct vfu_irq_set), true, true,
		vfu_do_set_irqs},
	[VFU_REGION_READ] = {"REGION_READ", sizeof(struct vfu_region_access), false, false,
		vfu_do_region_read},
	[VFU_REGION_WRITE] = {"REGION_WRITE", sizeof(struct vfu_region_access), true, false,
		vfu_do_region_write},
	[VFU_DEVICE_RESET] = {"DEVICE_RESET", 0, false, false, vfu_do_reset},
	[VFU_REGION_WRITE_MULTI] = {"REGION_WRITE_MULTI", sizeof(uint64_t), true, false,
		vfu_do_write_multi},
	[VFU_DEVICE_FEATURE] = {"DEVICE_FEATURE", sizeof(struct vfu_feature), true, false,
		vfu_do_feature},
	[VFU_MIG_DATA_READ] = {"MIG_DATA_READ", sizeof(struct vfu_mig_data), false, false,
		vfu_do_mig_read},
	[VFU_MIG_DATA_WRITE] = {"MIG_DATA_WRITE", sizeof(struct vfu_mig_data), true, false,
		vfu_do_mig_write},
};

static const char *
command_name(unsigned int command)
{
	return command < VFU_COMMAND_MAX && commands[command].name != NULL ?
		commands[command].name :
		"a command that it does not know";
}

/* The first is VERSION, and there is no other. */
static int
handle(struct vfu_server *server, const struct vfu_in *in)
{
	unsigned int command = in->header->command;
	size_t len = vfu_payload_len(in);

	server->reply_len = 0;
	server->nb_reply_fds = 0;
	server->why = NULL;
	server->now = in;
	if (command >= VFU_COMMAND_MAX || commands[command].handle == NULL)
		return -ENOTSUP;
	if ((command == VFU_VERSION) == server->attached)
		return vfu_refuse(server, -EPROTO,
			server->attached ? "the version is agreed already" :
					   "the version has to be agreed first");
	if (len < commands[command].least ||
		(len > commands[command].least && !commands[command].more))
		return vfu_refuse(server, -EINVAL, "its size is wrong");
	if (in->surplus || (in->nb_fds > 0 && !commands[command].fds))
		return vfu_refuse(server, -EINVAL, "it has too many descriptors");
	return commands[command].handle(server, vfu_payload(in), len);
}

static bool
reply(struct vfu_server *server, const struct vfu_header *to, int ret)
{
	struct vfu_out out = {
		.header = {to->id, to->command, 0, VFU_TYPE_REPLY, 0},
		.head = server->reply,
		.head_len = server->reply_len,
		.fds = server->reply_fds,
		.nb_fds = server->nb_reply_fds,
	};

	if (ret < 0) {
		out.header.flags |= VFU_ERROR;
		out.header.error = -ret;
		/* "If an error occurs, the reply message must only include the reply header." */
		out.head_len = out.nb_fds = 0;
	}
	return vfu_send(server->fd, &out);
}

/* A message is there. False: that was the client's last one. */
static bool
serve_message(struct vfu_server *server, struct vfu_in *in)
{
	struct vfu_header header = *in->header;
	int ret;

	if ((header.flags & VFU_TYPE_MASK) != VFU_TYPE_COMMAND) {
		vfu_tell(
			server, true, "client: neither a command nor an answer that is waited for");
		return false;
	}
	ret = handle(server, in);
	if (ret < 0)
		vfu_tell(server, true, "client: %s is refused: %s%s%s",
			command_name(header.command), strerror(-ret),
			server->why != NULL ? ": " : "", server->why != NULL ? server->why : "");
	if (server->broken || (!(header.flags & VFU_NO_REPLY) && !reply(server, &header, ret)))
		return false;
	if (!server->attached) {
		if (ret < 0)
			return false;
		server->attached = true;
		server->state = VFIO_DEVICE_STATE_RUNNING;
		if (server->device.ops->attached != NULL)
			server->device.ops->attached(server->device.priv);
	}
	return true;
}

/* Who sends descriptors whose close waits is not read while it does. */
static bool
is_closing(const struct vfu_server *server)
{
	return vfn_closer_waiting(server->closer) > VFU_MAX_CLOSING;
}

/* All that is there, up to a turn's worth: others may wait to be refused. */
static bool
serve_client(struct vfu_server *server)
{
	struct vfu_early *early;
	unsigned int i;
	bool ok = true;

	for (i = 0; i < VFU_MAX_EARLY && ok && !is_closing(server); i++) {
		early = STAILQ_FIRST(&server->early);
		if (early != NULL) {
			STAILQ_REMOVE_HEAD(&server->early, next);
			server->nb_early--;
			ok = serve_message(server, &early->in);
			vfu_in_free(&early->in);
			free(early);
			continue;
		}
		switch (vfu_receive(server->fd, &server->in)) {
		case VFU_IO_WAIT:
			return true;
		case VFU_IO_END:
			return false;
		case VFU_IO_NONSENSE:
			vfu_tell(server, true, "client: no message has %u bytes",
				server->in.header->size);
			return false;
		case VFU_IO_DONE:
			ok = serve_message(server, &server->in);
			vfu_in_reset(&server->in);
			break;
		}
	}
	return ok;
}

/* ---- clients ---- */

static void
client_begin(struct vfu_server *server, int fd)
{
	server->fd = fd;
	server->deadline = vfu_now_ms() + vfu_timeout_ms;
	server->broken = false;
}

static void
client_end(struct vfu_server *server)
{
	struct vfu_early *early;

	if (server->fd < 0)
		return;
	if (server->attached && server->device.ops->detached != NULL)
		server->device.ops->detached(server->device.priv);
	server->attached = false;
	server->logging = false;
	server->nb_maps = 0;
	vfu_in_reset(&server->in);
	vfu_in_reset(&server->answer);
	while ((early = STAILQ_FIRST(&server->early)) != NULL) {
		STAILQ_REMOVE_HEAD(&server->early, next);
		vfu_in_free(&early->in);
		free(early);
	}
	server->nb_early = 0;
	vfu_hang_up(server->fd, server->closer);
	server->fd = -1;
}

/* Has the client been too slow? Else *until is set to when it will have been, if it is sooner. */
static const char *
client_late(const struct vfu_server *server, uint64_t now, uint64_t *until)
{
	if (server->fd >= 0 && !server->attached && server->deadline < *until)
		*until = server->deadline;
	if (server->fd >= 0 && server->in.have > 0 && server->in.deadline < *until)
		*until = server->in.deadline;
	if (*until > now)
		return NULL;
	return server->in.have > 0 ? "stops in the middle of a message" : "says no version";
}

/* ---- clients that are not served ---- */

struct refused {
	int fd[MAX_REFUSED];
	uint64_t deadline[MAX_REFUSED];
	unsigned int nb;
};

/* Whatever its first message is, this is the answer. */
static void
refuse(struct vfu_server *server, struct refused *r, unsigned int i)
{
	struct vfu_out out = {.header = {.flags = VFU_TYPE_REPLY | VFU_ERROR, .error = EBUSY}};
	struct vfu_header header;

	if (recv(r->fd[i], &header, sizeof(header), MSG_DONTWAIT) == sizeof(header)) {
		out.header.id = header.id;
		out.header.command = header.command;
		vfu_send(r->fd[i], &out);
	}
	vfu_hang_up(r->fd[i], server->closer);
	r->nb--;
	r->fd[i] = r->fd[r->nb];
	r->deadline[i] = r->deadline[r->nb];
}

/* A connection is there, or the listening socket is at an end: that is returned. */
static int
accept_one(struct vfu_server *server, int listen_fd, struct refused *r, uint64_t *again)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0 && (errno == EINVAL || errno == EBADF || errno == ENOTSOCK))
		return -errno;
	if (fd < 0) {
		vfu_tell(server, true, "a client cannot be accepted: %s", strerror(errno));
		*again = vfu_now_ms() + ACCEPT_PAUSE_MS;
	} else if (server->fd < 0) {
		client_begin(server, fd);
	} else {
		vfu_tell(server, false, "another client is refused: there is one");
		r->fd[r->nb] = fd;
		r->deadline[r->nb++] = vfu_now_ms() + vfu_timeout_ms;
	}
	return 0;
}

int
vfu_serve(struct vfu_server *server, int listen_fd, int fd, int stop_fd)
{
	struct refused r = {.nb = 0};
	uint64_t again = 0; /* connections are accepted */
	int timeout, ret = 0;
	unsigned int i;

	if (fd >= 0)
		client_begin(server, fd);
	while (ret == 0 && (listen_fd >= 0 || server->fd >= 0)) {
		uint64_t now = vfu_now_ms(), until = UINT64_MAX;
		const char *late = client_late(server, now, &until);
		bool closing = is_closing(server);
		bool accepts = r.nb < MAX_REFUSED && now >= again && !closing;
		struct pollfd p[3 + MAX_REFUSED] = {
			{stop_fd, POLLIN, 0},
			{accepts ? listen_fd : -1, POLLIN, 0},
			{closing ? -1 : server->fd, POLLIN, 0},
		};

		if (late != NULL) {
			vfu_tell(server, true, "client: is too slow: %s", late);
			client_end(server);
			continue;
		}
		for (i = 0; i < r.nb; i++) {
			p[3 + i] = (struct pollfd){r.fd[i], POLLIN, 0};
			until = r.deadline[i] < until ? r.deadline[i] : until;
		}
		if (now < again && again < until)
			until = again;
		if (closing && now + CLOSING_LOOK_MS < until)
			until = now + CLOSING_LOOK_MS;
		if (!STAILQ_EMPTY(&server->early) && !closing)
			until = now;
		timeout = until == UINT64_MAX ? -1 : until > now ? (int)(until - now) : 0;
		if (poll(p, 3 + r.nb, timeout) < 0) {
			ret = errno == EINTR ? 0 : -errno;
			continue;
		}
		if (p[0].revents != 0)
			break;
		if ((p[2].revents != 0 || !STAILQ_EMPTY(&server->early)) && !serve_client(server))
			client_end(server);
		for (i = r.nb; i-- > 0;)
			if (p[3 + i].revents != 0 || r.deadline[i] <= now)
				refuse(server, &r, i);
		if (p[1].revents != 0)
			ret = accept_one(server, listen_fd, &r, &again);
	}
	client_end(server);
	while (r.nb > 0)
		vfu_hang_up(r.fd[--r.nb], server->closer);
	return ret;
}
