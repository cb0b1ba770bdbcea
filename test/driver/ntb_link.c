/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A function that is served at one side of a bridge, and a link from the other. Any thread. */

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ntb_sim.h>
#include <vfn_ntb_link.h>
#include <vfn_ntb_server.h>

#include "ntb_link.h"
#include "windows_link.h"

#define ANSWER_MS 20000
#define WINDOW	  (64u << 10)

struct served {
	struct vfn_link link;
	struct vfn_link *client, *real;
	struct vfn_ntb_server *server;
	struct ntb *bridge;
};

static struct served *
served_of(struct vfn_link *link)
{
	return (struct served *)((uint8_t *)link - offsetof(struct served, link));
}
#define CLIENT(link) (served_of(link)->client)

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

static int
served_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct served *s = served_of(link);
	int ret = s->client->ops->dma_map(s->client, map);

	return ret == -ENOTSUP ? s->real->ops->dma_map(s->real, map) : ret;
}

/* Whoever maps other memory all the same finds that the function does not get there. */
static int
served_window_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	int ret = CLIENT(link)->ops->dma_map(CLIENT(link), map);

	return ret == -ENOTSUP && map->space == VFN_DMA_GUEST ? 0 : ret;
}

static int
served_get_windows(struct vfn_link *link, struct vfn_windows *windows)
{
	return CLIENT(link)->ops->get_windows(CLIENT(link), windows);
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
	struct served *s = served_of(link);

	s->client->ops->close(s->client);
	vfn_ntb_server_close(s->server);
	ntb_close(s->bridge);
	s->real->ops->close(s->real);
	free(s);
}

static bool
mode_is(const char *wanted)
{
	const char *mode = getenv("VFN_POSTED");

	return mode != NULL && strcmp(mode, wanted) == 0;
}

bool
over_ntb(void)
{
	return mode_is("ntb");
}

bool
over_bridge(void)
{
	return mode_is("bridge");
}

struct ntb *
ntb_link_host(struct vfn_link *link)
{
	return vfn_ntb_bridge(CLIENT(link));
}

struct ntb *
ntb_link_end(struct vfn_link *link)
{
	return served_of(link)->bridge;
}

static struct ntb *
bridge(const char *path, uint64_t bus)
{
	const char *latency = getenv("VFN_NTB_LATENCY");
	struct ntb_sim_params params = {.name = "test",
		.path = path,
		.bus = bus,
		.size = over_bridge() ? VFN_NTB_AREA_SIZE + windows_size : WINDOW,
		.latency_us = latency != NULL ? atoi(latency) : 0};
	struct ntb *ntb;
	char why[128];

	if (ntb_sim_open(&params, &ntb, why, sizeof(why)) != 0) {
		fprintf(stderr, "bridge: %s\n", why);
		abort();
	}
	return ntb;
}

struct vfn_link *
ntb_link(struct vfn_link *real)
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
	static struct vfn_link_ops windows;
	struct served *s = calloc(1, sizeof(*s));
	struct vfn_ntb_server_params params = {.name = "ntb"};
	static unsigned int n;
	char path[64], why[192];

	if (s == NULL)
		abort();
	snprintf(path, sizeof(path), "/tmp/vfn-ntb-%d-%u", getpid(), n++);
	windows = ops;
	windows.dma_map = served_window_map;
	windows.get_windows = served_get_windows;
	s->link.ops = over_bridge() ? &windows : &ops;
	s->real = real;
	s->bridge = params.ntb = bridge(path, VFN_NTB_DEVICE_BUS);
	if (vfn_ntb_serve(real, NULL, &params, &s->server) != 0)
		abort();
	if (vfn_ntb_connect(bridge(path, VFN_NTB_DRIVER_BUS), NULL, ANSWER_MS, ANSWER_MS, why,
		    sizeof(why), &s->client) != 0) {
		fprintf(stderr, "bridge: %s\n", why);
		abort();
	}
	return &s->link;
}
