/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The far end of a link to another process: a function behind a vfio-user socket. The client's
 * commands become register accesses and calls of a link; the rest of that is in endpoint_*.c.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <linux/virtio_config.h>

#include <rte_common.h>

#include "../thread.h"
#include "endpoint.h"

RTE_LOG_REGISTER(vfn_endpoint_logtype, pmd.vdpa.vfn.endpoint, NOTICE);

/* What a reset of the device costs, as changes. */
#define RESET_CHANGES 20

#define PCI_CAP_POINTER 0x34
#define PCI_CAP_ID_MSIX 0x11
#define PCI_INTERRUPT	0x3c

/* ---- registers ---- */

uint32_t
ep_get(struct vfn_endpoint *ep, unsigned int region, uint64_t offset, size_t len)
{
	uint32_t v = 0;

	return ep->link->ops->read(ep->link, region, offset, &v, len) == 0 ? v : 0;
}

int
ep_set(struct vfn_endpoint *ep, unsigned int region, uint64_t offset, size_t len, uint32_t v)
{
	return ep->link->ops->write(ep->link, region, offset, &v, len);
}

static uint64_t
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

int
ep_wait(struct vfn_endpoint *ep, unsigned int region, uint64_t offset, size_t len, uint32_t v)
{
	uint64_t end = now_ns() + EP_ANSWER_MS * UINT64_C(1000000);
	bool late;

	for (;;) {
		/* Before the look: who was not running for a while looks once more. */
		late = now_ns() > end;
		if (ep_get(ep, region, offset, len) == v)
			return 0;
		if (late)
			return -ETIMEDOUT;
		usleep(10);
	}
}

/* A bucket as one number: the time at which it was empty. */
static void
changes(struct vfn_endpoint *ep, unsigned int n)
{
	const uint64_t one = UINT64_C(1000000000) / VFN_ENDPOINT_CHANGES_PER_S, cost = n * one;
	uint64_t now = now_ns(), room = VFN_ENDPOINT_CHANGES_BURST * one, wait;
	struct pollfd stop = {.fd = ep->stop_fd, .events = POLLIN};
	struct timespec nap;

	ep_count(&ep->accesses);
	if (ep->change_empty + room < now)
		ep->change_empty = now - room;
	ep->change_empty += cost;
	if (ep->change_empty <= now)
		return;
	ep_count(&ep->slowed);
	wait = ep->change_empty - now;
	nap = (struct timespec){.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
	/* One message can have thousands of them: who is to stop waits no longer. */
	ppoll(&stop, 1, &nap, NULL);
}

void
ep_change(struct vfn_endpoint *ep)
{
	changes(ep, 1);
}

static int
refused(struct vfn_endpoint *ep, int ret)
{
	if (ret < 0)
		ep_count(&ep->refused);
	return ret;
}

/* Where no register is, or none of that width, hardware reads as all ones and takes no writes. */
static int
done_by_hardware(struct vfn_endpoint *ep, int ret, void *buf, size_t len)
{
	if (refused(ep, ret) < 0 && buf != NULL)
		memset(buf, 0xff, len);
	return 0;
}

/* ---- regions ---- */

/* As VFIO numbers them; the link does, too. */
static void
ep_region(void *device, unsigned int index, struct vfu_region *region)
{
	static const uint64_t size[] = {
		[VFN_REGION_BAR0] = VFN_BAR0_SIZE,
		[VFN_REGION_BAR1] = VFN_BAR1_SIZE,
		[VFN_REGION_BAR2] = VFN_BAR2_SIZE,
		[VFN_REGION_CONFIG] = VFN_PCI_CONFIG_SIZE,
	};
	struct vfn_endpoint *ep = device;
	uint64_t len;
	int fd;

	if (index < RTE_DIM(size))
		region->size = size[index];
	if (index == VFN_ENDPOINT_REGION_CONTROL && ep->offer != NULL)
		region->size = sizeof(struct vfn_endpoint_control);
	if (region->size > 0)
		region->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	/* A plain store wakes nobody. */
	if (index == VFN_REGION_BAR2 && ep->busy && ep->link->ops->get_region_fd != NULL &&
		ep->link->ops->get_region_fd(ep->link, index, &fd, &len) == 0 &&
		len == region->size)
		region->fd = fd;
}

static int
ep_read(void *device, unsigned int index, uint64_t offset, void *buf, size_t len)
{
	struct vfn_endpoint *ep = device;
	struct vfn_endpoint_control control;
	int ret;

	ep_count(&ep->accesses);
	if (index != VFN_ENDPOINT_REGION_CONTROL)
		return done_by_hardware(
			ep, ep->link->ops->read(ep->link, index, offset, buf, len), buf, len);
	ret = ep->offer(ep->fn, NULL, &control);
	if (ret == 0)
		memcpy(buf, (const uint8_t *)&control + offset, len);
	return refused(ep, ret);
}

static int
write_control(struct vfn_endpoint *ep, uint64_t offset, const void *buf, size_t len)
{
	struct vfn_endpoint_control control;

	if (offset != 0 || len != sizeof(control))
		return -EINVAL;
	memcpy(&control, buf, sizeof(control));
	return ep->offer(ep->fn, &control, NULL);
}

static int
ep_write(void *device, unsigned int index, uint64_t offset, const void *buf, size_t len)
{
	struct vfn_endpoint *ep = device;
	int ret;

	if (index == VFN_REGION_BAR2) {
		ep_count(&ep->accesses);
		return done_by_hardware(
			ep, ep->link->ops->write(ep->link, index, offset, buf, len), NULL, 0);
	}
	ep_change(ep);
	if (index == VFN_ENDPOINT_REGION_CONTROL)
		return refused(ep, write_control(ep, offset, buf, len));
	if (index == VFN_REGION_BAR1)
		ep->table_written = true;
	ret = ep->link->ops->write(ep->link, index, offset, buf, len);
	if (ep->log != NULL)
		ep_log_keep(ep);
	return done_by_hardware(ep, ret, NULL, 0);
}

/* ---- life of a device ---- */

/* What a reset of the virtio device leaves alone. */
static void
config_reset(struct vfn_endpoint *ep)
{
	static const uint8_t nothing[VFN_PARTS_SIZE];
	const struct vfn_link_ops *ops = ep->link->ops;
	unsigned int at, cap;

	ep_set(ep, VFN_REGION_CONFIG, EP_PCI_COMMAND, 2, 0);
	ep_set(ep, VFN_REGION_CONFIG, PCI_INTERRUPT, 1, 0);
	for (at = ep_get(ep, VFN_REGION_CONFIG, PCI_CAP_POINTER, 1), cap = 0; at != 0 && cap < 48;
		cap++, at = ep_get(ep, VFN_REGION_CONFIG, at + 1, 1))
		if (ep_get(ep, VFN_REGION_CONFIG, at, 1) == 0x09 &&
			ep_get(ep, VFN_REGION_CONFIG, at + 3, 1) == VIRTIO_PCI_CAP_PCI_CFG)
			ops->write(ep->link, VFN_REGION_CONFIG, at + 4, nothing, 12);
	/* The window has nothing of the last one's; the result of a command that did well stays. */
	EP_SET(ep, VENDOR, parts_control, VFN_PARTS_GET);
	EP_WAIT(ep, VENDOR, parts_control, 0);
	ops->write(ep->link, VFN_REGION_BAR0, EP_GET(ep, VENDOR, parts_offset), nothing,
		RTE_MIN(sizeof(nothing), EP_GET(ep, VENDOR, parts_size)));
	EP_SET(ep, VENDOR, parts_len, 0);
}

/* As after power-on; bounded in time. */
static int
function_reset(struct vfn_endpoint *ep)
{
	int ret;

	EP_SET(ep, COMMON, device_status, 0);
	ret = EP_WAIT(ep, COMMON, device_status, 0);
	if (ret < 0)
		EP_LOG(ERR, ep, "the function does not end its reset");
	config_reset(ep);
	ep_irq_reset(ep);
	ep->table_written = ep->driver_ok = false;
	__atomic_store_n(&ep->state, ret < 0 ? VFIO_DEVICE_STATE_ERROR : VFIO_DEVICE_STATE_RUNNING,
		__ATOMIC_RELAXED);
	return ret;
}

static int
ep_reset(void *device)
{
	struct vfn_endpoint *ep = device;
	int ret;

	changes(ep, RESET_CHANGES);
	ep_state_free(ep);
	ret = function_reset(ep);
	if (ep->log != NULL)
		ep_log_keep(ep);
	return refused(ep, ret);
}

static void
ep_attached(void *device)
{
	struct vfn_endpoint *ep = device;

	/* Who comes goes, and the device is reset then. */
	changes(ep, RESET_CHANGES);
	ep_count(&ep->clients);
	__atomic_store_n(&ep->client, vfu_server_client(ep->server), __ATOMIC_RELAXED);
	__atomic_store_n(&ep->refused, 0, __ATOMIC_RELAXED);
	if (ep_irq_attach(ep) < 0)
		EP_LOG(WARNING, ep, "cannot wait for doorbells: its queues are polled");
	EP_LOG(INFO, ep, "process %d has the device", (int)ep->client);
}

static void
ep_detached(void *device)
{
	struct vfn_endpoint *ep = device;

	/* The function first: it touches nothing any more then. */
	EP_SET(ep, COMMON, device_status, 0);
	if (EP_WAIT(ep, COMMON, device_status, 0) < 0)
		EP_LOG(ERR, ep, "the function does not end its reset");
	ep_irq_detach(ep);
	ep_dma_detach(ep);
	ep_state_free(ep);
	function_reset(ep);
	if (ep->offer != NULL)
		ep->offer(ep->fn, NULL, NULL);
	__atomic_store_n(&ep->client, 0, __ATOMIC_RELAXED);
	EP_LOG(INFO, ep, "its client is gone");
}

static void
ep_log(void *device, bool error, const char *text)
{
	struct vfn_endpoint *ep = device;

	if (error)
		EP_LOG(ERR, ep, "%s", text);
	else
		EP_LOG(NOTICE, ep, "%s", text);
}

static const struct vfu_device_ops device_ops = {
	.attached = ep_attached,
	.detached = ep_detached,
	.region = ep_region,
	.ioeventfds = ep_ioeventfds,
	.irqs = ep_irqs,
	.read = ep_read,
	.write = ep_write,
	.dma_map = ep_dma_map,
	.dma_unmap = ep_dma_unmap,
	.irq_fd = ep_irq_fd,
	.irq_mask = ep_irq_mask,
	.irq_unmask_fd = ep_irq_unmask_fd,
	.irq_trigger = ep_irq_trigger,
	.reset = ep_reset,
	.migrate = ep_migrate,
	.state_read = ep_state_read,
	.state_write = ep_state_write,
	.log_start = ep_log_start,
	.log_stop = ep_log_stop,
	.log_report = ep_log_report,
	.log = ep_log,
};

/* ---- the endpoint ---- */

static void *
serve(void *arg)
{
	struct vfn_endpoint *ep = arg;
	int ret = vfu_serve(ep->server, ep->listen_fd, ep->fd, ep->stop_fd);

	if (ret < 0)
		EP_LOG(ERR, ep, "serves nobody any more: %s", strerror(-ret));
	eventfd_write(ep->ended_fd, 1);
	return NULL;
}

/* What the function at the link's other end is like. */
static int
look(struct vfn_endpoint *ep)
{
	unsigned int at = ep_get(ep, VFN_REGION_CONFIG, PCI_CAP_POINTER, 1), cap;

	for (cap = 0; at != 0 && cap < 48; cap++, at = ep_get(ep, VFN_REGION_CONFIG, at + 1, 1))
		if (ep_get(ep, VFN_REGION_CONFIG, at, 1) == PCI_CAP_ID_MSIX)
			ep->msix = at;
	ep->nb_queues = EP_GET(ep, COMMON, num_queues);
	if (ep->nb_queues == 0 || ep->nb_queues > VFN_MAX_QUEUES ||
		EP_GET(ep, VENDOR, version) != VFN_VENDOR_VERSION)
		return -ENODEV;
	if (ep->msix == 0)
		return 0;
	ep->nb_vectors = (ep_get(ep, VFN_REGION_CONFIG, ep->msix + EP_MSIX_CONTROL, 2) & 0x7ff) + 1;
	return ep->nb_vectors <= VFN_MAX_VECTORS ? 0 : -ENODEV;
}

static void
endpoint_free(struct vfn_endpoint *ep)
{
	if (ep->stop_fd >= 0)
		close(ep->stop_fd);
	if (ep->ended_fd >= 0)
		close(ep->ended_fd);
	if (ep->listen_fd >= 0)
		close(ep->listen_fd);
	vfu_server_free(ep->server);
	free(ep->map);
	free(ep);
}

int
vfn_endpoint_open(struct vfn_link *link, struct vfn_function *fn,
	const struct vfn_endpoint_params *params, struct vfn_endpoint **endpoint)
{
	struct vfn_endpoint *ep = calloc(1, sizeof(*ep));
	struct vfu_device device = {
		.ops = &device_ops,
		.priv = ep,
		.nb_regions = VFN_ENDPOINT_NUM_REGIONS,
		.nb_irqs = VFN_ENDPOINT_NUM_IRQS,
	};
	char thread[16];
	int ret;

	if (ep == NULL) {
		if (params->listen_fd >= 0)
			close(params->listen_fd);
		if (params->fd >= 0)
			close(params->fd);
		return -ENOMEM;
	}
	ep->link = link;
	ep->fn = fn;
	ep->offer = params->offer;
	ep->busy = params->busy;
	ep->listen_fd = params->listen_fd;
	ep->fd = params->fd;
	ep->state = VFIO_DEVICE_STATE_RUNNING;
	snprintf(ep->name, sizeof(ep->name), "%s", params->name);
	ep->stop_fd = eventfd(0, EFD_CLOEXEC);
	ep->ended_fd = eventfd(0, EFD_CLOEXEC);
	ep->map = calloc(VFU_MAX_MAPS, sizeof(*ep->map));
	ep->server = vfu_server_new(&device);
	if (ep->map == NULL || ep->server == NULL) {
		ret = -ENOMEM;
		goto free_endpoint;
	}
	if (ep->stop_fd < 0 || ep->ended_fd < 0) {
		ret = -EMFILE;
		goto free_endpoint;
	}
	ret = look(ep);
	if (ret == 0)
		ret = ep_irq_init(ep);
	if (ret < 0)
		goto free_endpoint;
	snprintf(thread, sizeof(thread), "vfn-ep-%.8s", params->name);
	ret = vfn_thread_start(&ep->server_thread, thread, serve, ep);
	if (ret == 0) {
		*endpoint = ep;
		return 0;
	}
	ep_irq_fini(ep);
free_endpoint:
	if (ep->fd >= 0)
		close(ep->fd);
	endpoint_free(ep);
	return ret;
}

void
vfn_endpoint_close(struct vfn_endpoint *ep)
{
	if (ep == NULL)
		return;
	eventfd_write(ep->stop_fd, 1);
	pthread_join(ep->server_thread, NULL);
	ep_irq_fini(ep);
	endpoint_free(ep);
}

int
vfn_endpoint_ended_fd(const struct vfn_endpoint *ep)
{
	return ep->ended_fd;
}

void
vfn_endpoint_info(struct vfn_endpoint *ep, struct vfn_endpoint_info *info)
{
#define NOW(field) __atomic_load_n(&ep->field, __ATOMIC_RELAXED)
	*info = (struct vfn_endpoint_info){
		.client = NOW(client),
		.clients = NOW(clients),
		.maps = NOW(nb_maps),
		.map_bytes = NOW(map_bytes),
		.unreachable = NOW(unreachable),
		.accesses = NOW(accesses),
		.slowed = NOW(slowed),
		.refused = NOW(refused),
		.logging = NOW(logging),
		.state = ep_state_name(NOW(state)),
	};
#undef NOW
}
