/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A function behind an endpoint, and a client of it. */

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <rte_common.h>

#include "ep_rig.h"

static struct rig *rigs;

static struct rig *
rig_of(struct vfn_link *link)
{
	return container_of(link, struct rig, link);
}

/* ---- the link ---- */

static int
rig_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	return vfu_client_read(rig_of(link)->client, region, offset, buf, len);
}

static int
rig_write(struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	return vfu_client_write(rig_of(link)->client, region, offset, buf, len);
}

static int
rig_dma_map(struct vfn_link *link, const struct vfn_dma_map *map)
{
	struct rig *r = rig_of(link);
	struct vfu_dma dma = {
		.address = map->iova | (map->space == VFN_DMA_OWN ? VFN_ENDPOINT_OWN : 0),
		.size = map->len,
		.flags = (map->readable ? VFIO_DMA_MAP_FLAG_READ : 0) |
			(map->writable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.fd = map->fd,
		.offset = map->offset,
	};
	int ret = vfu_client_dma_map(r->client, &dma);

	assert_true(r->nb_maps < RIG_MAPS);
	if (ret == 0)
		r->map[r->nb_maps++] = dma;
	return ret;
}

/* All that are inside the range. */
static int
rig_dma_unmap(struct vfn_link *link, enum vfn_dma_space space, uint64_t iova, uint64_t len)
{
	uint64_t from = iova | (space == VFN_DMA_OWN ? VFN_ENDPOINT_OWN : 0);
	struct rig *r = rig_of(link);
	unsigned int i;
	int ret = 0;

	for (i = r->nb_maps; i-- > 0 && ret == 0;) {
		const struct vfu_dma *m = &r->map[i];

		if (m->address < from || m->address - from >= len)
			continue;
		ret = vfu_client_dma_unmap(r->client, m->address, m->size);
		if (ret == 0)
			r->map[i] = r->map[--r->nb_maps];
	}
	return ret;
}

static int
rig_set_irq(struct vfn_link *link, unsigned int vector, int fd)
{
	bool pin = vector == VFN_VECTOR_INTX;

	return vfu_client_irq_fds(rig_of(link)->client,
		pin ? VFIO_PCI_INTX_IRQ_INDEX : VFIO_PCI_MSIX_IRQ_INDEX,
		VFIO_IRQ_SET_ACTION_TRIGGER, pin ? 0 : vector, fd >= 0 ? &fd : NULL, 1);
}

static int
rig_set_doorbell(struct vfn_link *link, unsigned int queue, int fd)
{
	return vfu_client_irq_fds(rig_of(link)->client, VFN_ENDPOINT_IRQ_DOORBELL,
		VFIO_IRQ_SET_ACTION_UNMASK, queue, fd >= 0 ? &fd : NULL, 1);
}

static const struct vfn_link_ops rig_ops = {
	.read = rig_read,
	.write = rig_write,
	.dma_map = rig_dma_map,
	.dma_unmap = rig_dma_unmap,
	.set_irq = rig_set_irq,
	.set_doorbell = rig_set_doorbell,
};

/* ---- the rig ---- */

static int
listen_at(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

struct rig *
rig_new(const struct guest_conf *conf, vfn_endpoint_offer offer)
{
	static unsigned int number;
	struct rig *r = calloc(1, sizeof(*r));
	struct vfn_endpoint_params params = {
		.name = "ep", .fd = -1, .busy = !conf->sleep, .offer = offer};

	assert_non_null(r);
	r->link.ops = &rig_ops;
	snprintf(r->path, sizeof(r->path), "/tmp/vfn-rig-%d-%u", (int)getpid(), number++);
	r->next = rigs;
	rigs = r;
	assert_int_equal(function_open(conf, &r->fn, &r->inner), 0);
	params.listen_fd = listen_at(r->path);
	assert_int_equal(vfn_endpoint_open(r->inner, r->fn, &params, &r->ep), 0);
	return r;
}

void
rig_connect(struct rig *r)
{
	assert_int_equal(vfu_client_connect(r->path, NULL, NULL, PATIENCE_MS, NULL, &r->client), 0);
}

void
rig_wait_idle(struct rig *r)
{
	uint64_t end = now_ms() + PATIENCE_MS;
	struct vfn_endpoint_info info;

	do {
		assert_true(now_ms() < end);
		nap_us(100);
		vfn_endpoint_info(r->ep, &info);
	} while (info.client != 0);
}

void
rig_disconnect(struct rig *r)
{
	vfu_client_close(r->client);
	r->client = NULL;
	r->nb_maps = 0;
	rig_wait_idle(r);
}

struct guest *
rig_guest(struct rig *r, const struct guest_conf *conf)
{
	struct guest_conf own = *conf;

	own.link = &r->link;
	own.files = true;
	r->guest = guest_new(&own);
	return r->guest;
}

int
rigs_close(void **state)
{
	guests_close(state);
	while (rigs != NULL) {
		struct rig *r = rigs;

		rigs = r->next;
		vfu_client_close(r->client);
		vfn_endpoint_close(r->ep);
		if (r->inner != NULL)
			r->inner->ops->close(r->inner);
		unlink(r->path);
		free(r);
	}
	return 0;
}

uint32_t
client_get(struct rig *r, unsigned int region, uint64_t offset, size_t len)
{
	uint32_t v = 0;

	assert_int_equal(vfu_client_read(r->client, region, offset, &v, len), 0);
	return v;
}

int
client_set(struct rig *r, unsigned int region, uint64_t offset, size_t len, uint32_t v)
{
	return vfu_client_write(r->client, region, offset, &v, len);
}

unsigned int
signals(int fd, bool wait)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	eventfd_t n = 0;

	if (poll(&pfd, 1, wait ? PATIENCE_MS : 0) == 1)
		eventfd_read(fd, &n);
	return n;
}

bool
signalled(int fd)
{
	return signals(fd, true) > 0;
}

static struct frame f;

void
rig_echo(struct guest *g, uint32_t number)
{
	frame_make(&f, number, 60 + number % 900);
	frame_passes(g, 1, g, 0, &f);
}

struct guest *
rig_guest_on(struct rig **rig, const struct guest_conf *conf)
{
	struct guest *g;

	*rig = rig_new(conf, NULL);
	rig_connect(*rig);
	g = rig_guest(*rig, conf);
	guest_start(g);
	return g;
}

void
mig_state_is(struct rig *r, enum vfio_device_mig_state state)
{
	enum vfio_device_mig_state now;

	assert_int_equal(vfu_client_mig_state(r->client, &now), 0);
	assert_int_equal(now, state);
}

void
mig_go_to(struct rig *r, enum vfio_device_mig_state state)
{
	assert_int_equal(vfu_client_set_mig_state(r->client, state), 0);
	mig_state_is(r, state);
}

int
eventfd_new(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}
