/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A function behind both sides of a simulated bridge. Any thread. */

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <vringh.h>

#include "fn_harness.h"
#include "ntb_link.h"
#include "windows_link.h"

#define HOST_AT UINT64_C(0x40000000) /* bus addresses of the driver's memory */
#define END_AT	UINT64_C(0x80000000)

uint64_t windows_size = UINT64_C(1) << 20;

struct windows {
	struct vfn_link link;
	struct vfn_link *real;
	struct ntb *host, *end;
	struct vringh_io host_io, end_io;
};

static struct windows *
windows_of(struct vfn_link *link)
{
	return (struct windows *)((uint8_t *)link - offsetof(struct windows, link));
}

struct ntb *
windows_host(struct vfn_link *link)
{
	return over_bridge() ? ntb_link_host(link) : windows_of(link)->host;
}

struct ntb *
windows_end(struct vfn_link *link)
{
	return over_bridge() ? ntb_link_end(link) : windows_of(link)->end;
}

static int
w_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	struct vfn_link *real = windows_of(link)->real;

	return real->ops->read(real, region, offset, buf, len);
}

static int
w_write(struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	struct vfn_link *real = windows_of(link)->real;

	return real->ops->write(real, region, offset, buf, len);
}

/* Whoever maps memory all the same finds that the function does not get there. */
static int
w_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	(void)link;
	return map->space == VFN_DMA_GUEST ? 0 : -ENOTSUP;
}

static int
w_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	(void)link;
	(void)space;
	(void)iova;
	(void)len;
	return 0;
}

static int
w_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	struct vfn_link *real = windows_of(link)->real;

	return real->ops->set_irq(real, vector, fd);
}

static int
w_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	struct vfn_link *real = windows_of(link)->real;

	return real->ops->set_doorbell(real, queue, fd);
}

static int
w_get_region_fd(struct vfn_link *link, unsigned int region, int *fd, uint64_t *size)
{
	(void)link;
	(void)region;
	(void)fd;
	(void)size;
	return -ENOTSUP;
}

static int
w_get_windows(struct vfn_link *link, struct vfn_windows *w)
{
	struct windows *s = windows_of(link);

	*w = (struct vfn_windows){.io = &s->host_io};
	w->out.host = s->host->out.host;
	w->out.iova = s->host->out.bus;
	w->out.len = s->host->out.size;
	w->in.host = s->host->in.host;
	w->in.iova = s->host->in.bus;
	w->in.len = s->host->in.size;
	return 0;
}

static void
w_close(struct vfn_link *link)
{
	struct windows *s = windows_of(link);

	s->real->ops->close(s->real);
	ntb_close(s->host);
	ntb_close(s->end);
	free(s);
}

static struct ntb *
side(const char *name, const char *path, uint64_t bus, struct vringh_io *io)
{
	struct ntb_sim_params params = {
		.name = name, .path = path, .bus = bus, .size = windows_size};
	struct ntb *ntb;
	char why[128];

	if (ntb_sim_open(&params, &ntb, why, sizeof(why)) < 0 || ntb_link_enable(ntb) < 0)
		abort();
	*io = (struct vringh_io){.invalidate = ntb_invalidate, .flush = ntb_flush, .arg = ntb};
	return ntb;
}

struct vfn_link *
windows_link(struct vfn_link *real)
{
	static const struct vfn_link_ops ops = {
		.read = w_read,
		.write = w_write,
		.dma_map = w_dma_map,
		.dma_unmap = w_dma_unmap,
		.set_irq = w_set_irq,
		.set_doorbell = w_set_doorbell,
		.get_region_fd = w_get_region_fd,
		.get_windows = w_get_windows,
		.close = w_close,
	};
	char dir[] = "/tmp/vfn-windows-XXXXXX", path[sizeof(dir) + sizeof("/ntb")];
	struct windows *s = calloc(1, sizeof(*s));
	struct vfn_dma_map map;

	if (s == NULL || mkdtemp(dir) == NULL)
		abort();
	snprintf(path, sizeof(path), "%s/ntb", dir);
	s->link.ops = &ops;
	s->real = real;
	s->host = side("host", path, HOST_AT, &s->host_io);
	s->end = side("end", path, END_AT, &s->end_io);
	while (!ntb_link_up(s->host) || !ntb_link_up(s->end))
		nap_us(1000);
	unlink(path);
	rmdir(dir);
	map = (struct vfn_dma_map){.iova = s->end->in.bus,
		.len = s->end->in.size,
		.host = s->end->in.host,
		.fd = -1,
		.readable = true,
		.io = &s->end_io};
	if (real->ops->dma_map(real, &map) < 0)
		abort();
	map = (struct vfn_dma_map){.iova = s->end->out.bus,
		.len = s->end->out.size,
		.host = s->end->out.host,
		.fd = -1,
		.writable = true,
		.io = &s->end_io};
	if (real->ops->dma_map(real, &map) < 0)
		abort();
	return &s->link;
}
