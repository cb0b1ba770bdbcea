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

/* Refusals of a client's that are logged; the rest are counted. */
#define MAX_TOLD 8

/* Commands that may come while the server waits for an answer. */
#define MAX_EARLY 64

static void tell(const struct vfu_server *server, bool error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void
tell(const struct vfu_server *server, bool error, const char *format, ...)
{
	char text[256];
	va_list args;

	if (server->device.ops->log == NULL)
		return;
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
	if (!vfu_in_init(&server->in) || !vfu_in_init(&server->answer) || server->map == NULL ||
		server->reply == NULL) {
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
		tell(server, true, "client: neither a command nor an answer that is waited for");
		return false;
	}
	ret = handle(server, in);
	if (ret < 0 && server->refusals++ < MAX_TOLD)
		tell(server, true, "client: %s is refused: %s%s%s", command_name(header.command),
			strerror(-ret), server->why != NULL ? ": " : "",
			server->why != NULL ? server->why : "");
	if (!(header.flags & VFU_NO_REPLY) && !reply(server, &header, ret))
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

/* All that is there, up to a turn's worth: others may wait to be refused. */
static bool
serve_client(struct vfu_server *server)
{
	struct vfu_early *early;
	unsigned int i;
	bool ok = true;

	for (i = 0; i < MAX_EARLY && ok && server->fd >= 0; i++) {
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
			tell(server, true, "client: no message has %u bytes",
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
	server->deadline = vfu_now_ms() + VFU_TIMEOUT_MS;
	server->refusals = 0;
}

static void
client_end(struct vfu_server *server)
{
	struct vfu_early *early;

	if (server->fd < 0)
		return;
	if (server->refusals > MAX_TOLD)
		tell(server, true, "client: %u more commands were refused",
			server->refusals - MAX_TOLD);
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
	close(server->fd);
	server->fd = -1;
}

/* Has the client been too slow? *timeout_ms is how long to wait for it, -1: for ever. */
static bool
client_late(const struct vfu_server *server, int *timeout_ms)
{
	uint64_t now = vfu_now_ms(), deadline = UINT64_MAX;

	if (server->fd >= 0 && !server->attached)
		deadline = server->deadline;
	if (server->fd >= 0 && server->in.have > 0 && server->in.deadline < deadline)
		deadline = server->in.deadline;
	*timeout_ms = deadline == UINT64_MAX ? -1 : deadline > now ? (int)(deadline - now) : 0;
	return deadline <= now;
}

/* Another client: whatever its first message is, this is the answer. */
static void
refuse(int fd)
{
	struct vfu_out out = {.header = {.flags = VFU_TYPE_REPLY | VFU_ERROR, .error = EBUSY}};
	struct vfu_header header;

	if (recv(fd, &header, sizeof(header), MSG_DONTWAIT) == sizeof(header)) {
		out.header.id = header.id;
		out.header.command = header.command;
		vfu_send(fd, &out);
	}
	close(fd);
}

int
vfu_serve(struct vfu_server *server, int listen_fd, int fd, int stop_fd)
{
	int refused[MAX_REFUSED], timeout, n, ret = 0;
	unsigned int i, nb_refused = 0;

	if (fd >= 0)
		client_begin(server, fd);
	while (listen_fd >= 0 || server->fd >= 0) {
		struct pollfd p[3 + MAX_REFUSED] = {
			{stop_fd, POLLIN, 0},
			{nb_refused < MAX_REFUSED ? listen_fd : -1, POLLIN, 0},
			{server->fd, POLLIN, 0},
		};

		for (i = 0; i < nb_refused; i++)
			p[3 + i] = (struct pollfd){refused[i], POLLIN, 0};
		if (client_late(server, &timeout)) {
			tell(server, true, "client: is too slow, in the middle of a message");
			client_end(server);
			continue;
		}
		if (!STAILQ_EMPTY(&server->early))
			timeout = 0;
		n = poll(p, 3 + nb_refused, timeout);
		if (n < 0 && errno != EINTR)
			ret = -errno;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || p[0].revents != 0)
			break;
		if ((p[2].revents != 0 || !STAILQ_EMPTY(&server->early)) && !serve_client(server))
			client_end(server);
		for (i = nb_refused; i-- > 0;)
			if (p[3 + i].revents != 0) {
				refuse(refused[i]);
				refused[i] = refused[--nb_refused];
			}
		if (p[1].revents == 0)
			continue;
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 && errno == EINVAL) {
			ret = -errno; /* it does not listen any more */
			break;
		}
		if (fd >= 0 && server->fd < 0) {
			client_begin(server, fd);
		} else if (fd >= 0) {
			tell(server, false, "another client is refused: there is one");
			refused[nb_refused++] = fd;
		}
	}
	client_end(server);
	while (nb_refused > 0)
		close(refused[--nb_refused]);
	return ret;
}

/* ---- the server's own commands ---- */

static int
early_add(struct vfu_server *server)
{
	struct vfu_early *early;

	if (server->nb_early >= MAX_EARLY)
		return -ENOBUFS;
	early = calloc(1, sizeof(*early));
	if (early == NULL)
		return -ENOMEM;
	/* Its buffer goes with it. */
	early->in = server->answer;
	if (!vfu_in_init(&server->answer)) {
		server->answer = early->in;
		free(early);
		return -ENOMEM;
	}
	STAILQ_INSERT_TAIL(&server->early, early, next);
	server->nb_early++;
	return 0;
}

/* The answer to our last command is left in server->answer. */
static int
answer_wait(struct vfu_server *server)
{
	uint64_t deadline = vfu_now_ms() + VFU_TIMEOUT_MS;
	const struct vfu_header *h = server->answer.header;
	int ret;

	for (;;) {
		switch (vfu_receive(server->fd, &server->answer)) {
		case VFU_IO_WAIT:
			if (!vfu_wait(server->fd, POLLIN, deadline))
				return -ETIMEDOUT;
			continue;
		case VFU_IO_DONE:
			break;
		default:
			return -EPIPE;
		}
		h = server->answer.header;
		if ((h->flags & VFU_TYPE_MASK) == VFU_TYPE_REPLY)
			break;
		ret = early_add(server);
		if (ret < 0)
			return ret;
	}
	if (h->id != server->id)
		return -EPROTO;
	if (h->flags & VFU_ERROR)
		return h->error > 0 && h->error < 4096 ? -(int)h->error : -EIO;
	return 0;
}

static bool
may_access(const struct vfu_server *server, uint64_t address, size_t len, uint32_t flag)
{
	unsigned int i;

	for (i = 0; i < server->nb_maps; i++) {
		const struct vfu_dma *m = &server->map[i];

		if (address - m->address < m->size && len <= m->size - (address - m->address))
			return m->flags & flag;
	}
	return false;
}

/* One message's worth. What is not as it should be ends the connection: nobody knows what follows.
 */
static int
dma_access(struct vfu_server *server, uint16_t command, uint64_t address, const void *from,
	void *to, size_t len)
{
	struct vfu_dma_access access = {address, len};
	struct vfu_out out = {
		.header = {.id = ++server->id, .command = command},
		.head = &access,
		.head_len = sizeof(access),
		.data = from,
		.data_len = from != NULL ? len : 0,
	};
	const struct vfu_dma_access *got;
	int ret = -EPIPE;

	if (vfu_send(server->fd, &out))
		ret = answer_wait(server);
	got = vfu_payload(&server->answer);
	if (ret == 0 &&
		(vfu_payload_len(&server->answer) < sizeof(*got) || got->address != address ||
			(to != NULL &&
				(got->count != len ||
					vfu_payload_len(&server->answer) != sizeof(*got) + len))))
		ret = -EPROTO;
	if (ret == 0 && to != NULL)
		memcpy(to, got + 1, len);
	vfu_in_reset(&server->answer);
	if (ret == -EPIPE || ret == -EPROTO || ret == -ETIMEDOUT || ret == -ENOBUFS)
		shutdown(server->fd, SHUT_RDWR);
	return ret;
}

static int
dma_accesses(struct vfu_server *server, uint16_t command, uint64_t address, const uint8_t *from,
	uint8_t *to, size_t len)
{
	size_t most = server->peer.max_xfer < VFU_MAX_XFER ? server->peer.max_xfer : VFU_MAX_XFER;
	size_t done, n;
	int ret = 0;

	if (server->fd < 0 ||
		!may_access(server, address, len,
			from == NULL ? VFIO_DMA_MAP_FLAG_READ : VFIO_DMA_MAP_FLAG_WRITE))
		return -EFAULT;
	for (done = 0; done < len && ret == 0; done += n) {
		n = len - done < most ? len - done : most;
		ret = dma_access(server, command, address + done, from != NULL ? from + done : NULL,
			to != NULL ? to + done : NULL, n);
	}
	return ret;
}

int
vfu_server_dma_read(struct vfu_server *server, uint64_t address, void *buf, size_t len)
{
	return dma_accesses(server, VFU_DMA_READ, address, NULL, buf, len);
}

int
vfu_server_dma_write(struct vfu_server *server, uint64_t address, const void *buf, size_t len)
{
	return dma_accesses(server, VFU_DMA_WRITE, address, buf, NULL, len);
}
