/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The server's own commands, with which it reads and writes memory of the client, and the wait for
 * their answers. On the thread of vfu_serve().
 */

#include <poll.h>
#include <stdlib.h>

#include "vfu_private.h"

/* Of a reply to VFU_DMA_WRITE: some have a count of 4 bytes, as the specification's table has it.
 */
#define WRITE_REPLY_LEAST 12

/*
 * The client is not to be talked to any more: nobody knows what follows. It is hung up after
 * detached().
 */
static int
give_up(struct vfu_server *server, int error, const char *why)
{
	vfu_tell(server, true, "client: %s", why);
	server->broken = true;
	return error;
}

/* A command came in place of an answer: it is done later. */
static bool
early_add(struct vfu_server *server)
{
	struct vfu_early *early;

	if (server->nb_early >= VFU_MAX_EARLY)
		return false;
	early = calloc(1, sizeof(*early));
	if (early == NULL)
		return false;
	/* Its buffer goes with it. */
	early->in = server->answer;
	if (!vfu_in_init(&server->answer, server->closer)) {
		server->answer = early->in;
		free(early);
		return false;
	}
	STAILQ_INSERT_TAIL(&server->early, early, next);
	server->nb_early++;
	return true;
}

/* The answer to our last command is left in server->answer; or the connection is given up. */
static int
answer_wait(struct vfu_server *server, uint64_t deadline)
{
	const struct vfu_header *h;

	for (;;) {
		switch (vfu_receive(server->fd, &server->answer)) {
		case VFU_IO_WAIT:
			if (!vfu_wait(server->fd, POLLIN, deadline))
				return give_up(server, -ETIMEDOUT, "does not answer");
			continue;
		case VFU_IO_END:
			return give_up(server, -EPIPE, "leaves instead of answering");
		case VFU_IO_NONSENSE:
			return give_up(server, -EPROTO, "no answer has that size");
		case VFU_IO_DONE:
			break;
		}
		h = server->answer.header;
		if ((h->flags & VFU_TYPE_MASK) == VFU_TYPE_REPLY)
			break;
		if (!early_add(server))
			return give_up(server, -ENOBUFS, "sends commands instead of answering");
	}
	return 0;
}

static bool
may_access(const struct vfu_server *server, uint64_t address, size_t len, uint32_t flag)
{
	unsigned int at = vfu_map_find(server, address);
	const struct vfu_dma *m = &server->map[at];

	return at < server->nb_maps && address >= m->address && (m->flags & flag) != 0 &&
		len <= m->size - (address - m->address);
}

/* Is it what the command asked for? */
static bool
answer_fits(const struct vfu_server *server, uint16_t command, const struct vfu_dma_access *access)
{
	const struct vfu_header *h = server->answer.header;
	size_t len = vfu_payload_len(&server->answer);
	struct vfu_dma_access got = {0};

	if (h->id != server->id || h->command != command)
		return false;
	if (h->flags & VFU_ERROR)
		return true;
	if (command == VFU_DMA_READ ? len != sizeof(got) + access->count :
				      len != sizeof(got) && len != WRITE_REPLY_LEAST)
		return false;
	memcpy(&got, vfu_payload(&server->answer), len < sizeof(got) ? len : sizeof(got));
	return got.address == access->address && got.count == access->count;
}

/* One message's worth. */
static int
dma_access(struct vfu_server *server, uint16_t command, const struct vfu_dma_access *access,
	const void *from, void *to, uint64_t deadline)
{
	struct vfu_out out = {
		.header = {.id = ++server->id, .command = command},
		.head = access,
		.head_len = sizeof(*access),
		.data = from,
		.data_len = from != NULL ? access->count : 0,
	};
	const struct vfu_header *h;
	int ret;

	if (!vfu_send(server->fd, &out))
		return give_up(server, -EPIPE, "takes no command");
	ret = answer_wait(server, deadline);
	if (ret < 0)
		return ret;
	h = server->answer.header;
	if (!answer_fits(server, command, access))
		ret = give_up(server, -EPROTO, "its answer does not fit what was asked");
	else if (h->flags & VFU_ERROR)
		ret = h->error > 0 && h->error < 4096 ? -(int)h->error : -EIO;
	else if (to != NULL)
		memcpy(to, (const uint8_t *)vfu_payload(&server->answer) + sizeof(*access),
			access->count);
	vfu_in_reset(&server->answer);
	return ret;
}

static int
dma_accesses(struct vfu_server *server, uint16_t command, uint64_t address, const uint8_t *from,
	uint8_t *to, size_t len)
{
	size_t most = server->peer.max_xfer < VFU_MAX_XFER ? server->peer.max_xfer : VFU_MAX_XFER;
	/* In all: a client that wants it in single bytes gets no more time for it. */
	uint64_t deadline = vfu_now_ms() + vfu_timeout_ms;
	size_t done, n;
	int ret = 0;

	if (server->fd < 0 ||
		!may_access(server, address, len,
			from == NULL ? VFIO_DMA_MAP_FLAG_READ : VFIO_DMA_MAP_FLAG_WRITE))
		return -EFAULT;
	if (server->broken)
		return -EPIPE;
	for (done = 0; done < len && ret == 0; done += n) {
		n = len - done < most ? len - done : most;
		ret = dma_access(server, command, &(const struct vfu_dma_access){address + done, n},
			from != NULL ? from + done : NULL, to != NULL ? to + done : NULL, deadline);
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
