/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A function that is served by vfio-user, and a client of that. Any thread. */

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <vfn_endpoint_link.h>
#include <vfn_endpoint_server.h>

#include "endpoint_link.h"

#define ANSWER_MS 20000

struct served {
	struct vfn_link link;
	struct vfn_link *client, *real;
	struct vfn_endpoint *endpoint;
};

/* The operations of the client's link, by its address. */
#define CLIENT(link) (((struct served *)((uint8_t *)(link)-offsetof(struct served, link)))->client)

static int
served_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	return CLIENT(link)->ops->read(CLIENT(link), region, offset, buf, len);
}

static int
served_write(
	struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	return CLIENT(link)->ops->write(CLIENT(link), region, offset, buf, len);
}

/* Have whole pages of a test's memory in a file, with what is in them. */
static int
make_file(const struct vfn_dma_map *map, uint64_t *offset)
{
	const uintptr_t page = sysconf(_SC_PAGESIZE), at = (uintptr_t)map->host;
	const uintptr_t from = at / page * page, to = (at + map->len + page - 1) / page * page;
	int fd = memfd_create("test", MFD_CLOEXEC);

	*offset = at - from;
	if (fd < 0 || write(fd, (void *)from, to - from) != (ssize_t)(to - from) ||
		mmap((void *)from, to - from, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			0) == MAP_FAILED)
		abort();
	return fd;
}

static int
served_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct vfn_dma_map file = *map;
	int ret;

	if (map->fd >= 0 || map->host == NULL)
		return CLIENT(link)->ops->dma_map(CLIENT(link), map);
	file.fd = make_file(map, &file.offset);
	ret = CLIENT(link)->ops->dma_map(CLIENT(link), &file);
	close(file.fd);
	return ret;
}

static int
served_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	return CLIENT(link)->ops->dma_unmap(CLIENT(link), space, iova, len);
}

static int
served_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	return CLIENT(link)->ops->set_irq(CLIENT(link), vector, fd);
}

static int
served_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	return CLIENT(link)->ops->set_doorbell(CLIENT(link), queue, fd);
}

static int
served_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	return CLIENT(link)->ops->get_region_fd(CLIENT(link), region, fd, size);
}

static void
served_close(struct vfn_link *link)
{
	struct served *s = (struct served *)((uint8_t *)link - offsetof(struct served, link));

	s->client->ops->close(s->client);
	vfn_endpoint_close(s->endpoint);
	s->real->ops->close(s->real);
	free(s);
}

struct vfn_endpoint *
endpoint_serve(struct vfn_link *link, const char *path)
{
	struct vfn_endpoint_params params = {.name = "endpoint", .fd = -1, .busy = true};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct vfn_endpoint *endpoint;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
		abort();
	params.listen_fd = fd;
	if (vfn_endpoint_open(link, NULL, &params, &endpoint) != 0)
		abort();
	return endpoint;
}

bool
over_endpoint(void)
{
	const char *mode = getenv("VFN_POSTED");

	return mode != NULL && strcmp(mode, "endpoint") == 0;
}

struct vfn_link *
endpoint_link(struct vfn_link *real)
{
	static const struct vfn_link_ops ops = {
		.read = served_read,
		.write = served_write,
		.dma_map = served_dma_map,
		.dma_unmap = served_dma_unmap,
		.set_irq = served_set_irq,
		.set_doorbell = served_set_doorbell,
		.get_region_fd = served_get_region_fd,
		.close = served_close,
	};
	struct served *s = calloc(1, sizeof(*s));
	char path[64], why[192];
	static unsigned int n;

	if (s == NULL)
		abort();
	snprintf(path, sizeof(path), "/tmp/vfn-endpoint-%d-%u", getpid(), n++);
	s->link.ops = &ops;
	s->real = real;
	s->endpoint = endpoint_serve(real, path);
	if (vfn_endpoint_connect(path, NULL, ANSWER_MS, NULL, why, sizeof(why), &s->client) != 0) {
		fprintf(stderr, "endpoint: %s\n", why);
		abort();
	}
	unlink(path);
	return &s->link;
}
