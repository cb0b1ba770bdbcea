/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Migration of an endpoint's device (VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE): the function's parts,
 * and of its configuration space and MSI-X table what a driver writes. On the server's thread.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_config.h>

#include <rte_common.h>

#include "endpoint.h"

#define STATE_MAGIC   0x45464e56 /* "VNFE" */
#define STATE_VERSION 1

/* What the bytes begin with; the MSI-X table and the parts follow. Little-endian. */
struct ep_state {
	uint32_t magic;
	uint16_t version;
	uint16_t command;      /* PCI */
	uint16_t msix_control; /* PCI */
	uint16_t nb_vectors;
	uint32_t parts_len;
	uint32_t checksum;  /* of all of it, with 0 in this place */
	uint32_t driver_ok; /* 0 or 1: the driver had said so */
};
#define STATE_MAX \
	(sizeof(struct ep_state) + VFN_MAX_VECTORS * EP_MSIX_ENTRY + (size_t)VFN_PARTS_SIZE)

const char *
ep_state_name(uint32_t state)
{
	static const char *const names[] = {
		[VFIO_DEVICE_STATE_ERROR] = "error",
		[VFIO_DEVICE_STATE_STOP] = "stopped",
		[VFIO_DEVICE_STATE_RUNNING] = "running",
		[VFIO_DEVICE_STATE_STOP_COPY] = "saving",
		[VFIO_DEVICE_STATE_RESUMING] = "loading",
	};

	return state < RTE_DIM(names) && names[state] != NULL ? names[state] : "unknown";
}

void
ep_state_free(struct vfn_endpoint *ep)
{
	free(ep->saved.data);
	ep->saved = (struct ep_saved){0};
}

/* Room for a state, empty. */
static int
state_new(struct vfn_endpoint *ep)
{
	ep_state_free(ep);
	ep->saved.data = malloc(STATE_MAX);
	return ep->saved.data != NULL ? 0 : -ENOMEM;
}

/* Have a command carried out: its result. */
static int
parts_command(struct vfn_endpoint *ep, enum vfn_parts_command command)
{
	uint32_t result;

	EP_SET(ep, VENDOR, parts_control, command);
	result = EP_GET(ep, VENDOR, parts_control);
	if (result == VFN_PARTS_BUSY)
		return -ETIMEDOUT;
	return result < UINT16_MAX ? -(int)result : -EIO;
}

static uint32_t
checksum(struct ep_saved *s)
{
	struct ep_state header;
	uint32_t sum;

	memcpy(&header, s->data, sizeof(header));
	header.checksum = 0;
	memcpy(s->data, &header, sizeof(header));
	sum = vfn_parts_checksum(s->data, s->len);
	return sum;
}

/* ---- saving ---- */

static int
state_save(struct vfn_endpoint *ep)
{
	const struct vfn_link_ops *ops = ep->link->ops;
	const size_t table = ep->nb_vectors * EP_MSIX_ENTRY;
	struct ep_saved *s = &ep->saved;
	struct ep_state header = {
		.magic = STATE_MAGIC,
		.version = STATE_VERSION,
		.command = ep_get(ep, VFN_REGION_CONFIG, EP_PCI_COMMAND, 2),
		.msix_control = ep_get(ep, VFN_REGION_CONFIG, ep->msix + EP_MSIX_CONTROL, 2),
		.nb_vectors = ep->nb_vectors,
		/* It may have been loaded, and not run since. */
		.driver_ok = ep->driver_ok ||
			(EP_GET(ep, COMMON, device_status) & VIRTIO_CONFIG_S_DRIVER_OK) != 0,
	};
	int ret = state_new(ep);

	if (ret == 0)
		ret = parts_command(ep, VFN_PARTS_GET);
	if (ret < 0)
		return ret;
	header.parts_len = EP_GET(ep, VENDOR, parts_len);
	if (header.parts_len > VFN_PARTS_SIZE)
		return -EIO;
	ret = ops->read(ep->link, VFN_REGION_BAR1, VFN_OFF_MSIX_TABLE, s->data + sizeof(header),
		table);
	if (ret == 0)
		ret = ops->read(ep->link, VFN_REGION_BAR0, EP_GET(ep, VENDOR, parts_offset),
			s->data + sizeof(header) + table, header.parts_len);
	if (ret < 0)
		return ret;
	memcpy(s->data, &header, sizeof(header));
	s->len = sizeof(header) + table + header.parts_len;
	header.checksum = checksum(s);
	memcpy(s->data, &header, sizeof(header));
	return 0;
}

ssize_t
ep_state_read(void *device, void *buf, size_t len)
{
	struct vfn_endpoint *ep = device;
	struct ep_saved *s = &ep->saved;
	size_t n = RTE_MIN(len, s->len - s->at);

	ep_count(&ep->accesses);
	memcpy(buf, s->data + s->at, n);
	s->at += n;
	return n;
}

/* ---- loading ---- */

int
ep_state_write(void *device, const void *buf, size_t len)
{
	struct vfn_endpoint *ep = device;
	struct ep_saved *s = &ep->saved;

	ep_count(&ep->accesses);
	if (len > STATE_MAX - s->len)
		return -ENOSPC;
	memcpy(s->data + s->len, buf, len);
	s->len += len;
	return 0;
}

#define REFUSE(ep, error, fmt, ...) \
	(EP_LOG(ERR, ep, "state refused: " fmt, ##__VA_ARGS__), -(error))

/* Is it a state of a function like this one? Nothing is changed by that. */
static int
state_check(struct vfn_endpoint *ep, struct ep_state *header)
{
	struct ep_saved *s = &ep->saved;
	const size_t table = ep->nb_vectors * EP_MSIX_ENTRY;
	uint32_t sum;
	int ret;

	if (s->len < sizeof(*header))
		return REFUSE(ep, EINVAL, "%zu bytes are none", s->len);
	memcpy(header, s->data, sizeof(*header));
	if (header->magic != STATE_MAGIC || header->driver_ok > 1)
		return REFUSE(ep, EINVAL, "it is something else");
	if (header->version != STATE_VERSION)
		return REFUSE(ep, EPROTONOSUPPORT, "version %u is not known", header->version);
	if (header->nb_vectors != ep->nb_vectors)
		return REFUSE(ep, EINVAL, "it is of a function with %u vectors, not %u",
			header->nb_vectors, ep->nb_vectors);
	if (s->len - sizeof(*header) < table || header->parts_len > VFN_PARTS_SIZE ||
		header->parts_len != s->len - sizeof(*header) - table)
		return REFUSE(ep, EINVAL, "it is not as long as it says");
	sum = checksum(s);
	if (sum != header->checksum)
		return REFUSE(ep, EBADMSG, "the checksum is wrong");
	ret = ep->link->ops->write(ep->link, VFN_REGION_BAR0, EP_GET(ep, VENDOR, parts_offset),
		s->data + sizeof(*header) + table, header->parts_len);
	if (ret == 0)
		ret = EP_SET(ep, VENDOR, parts_len, header->parts_len);
	return ret == 0 ? parts_command(ep, VFN_PARTS_CHECK) : ret;
}

static int
state_load(struct vfn_endpoint *ep)
{
	const struct vfn_link_ops *ops = ep->link->ops;
	const size_t table = ep->nb_vectors * EP_MSIX_ENTRY;
	struct ep_saved *s = &ep->saved;
	struct ep_state header;
	int ret = state_check(ep, &header);

	if (ret < 0)
		return ret;
	/* From here on the device is not as it was. */
	EP_SET(ep, COMMON, device_status, 0);
	if (EP_WAIT(ep, COMMON, device_status, 0) < 0)
		return -EIO;
	if (ep->log != NULL)
		ep_log_keep(ep);
	ret = parts_command(ep, VFN_PARTS_SET);
	if (ret == 0)
		ret = ops->write(ep->link, VFN_REGION_BAR1, VFN_OFF_MSIX_TABLE,
			s->data + sizeof(header), table);
	if (ret == 0)
		ret = ep_set(ep, VFN_REGION_CONFIG, EP_PCI_COMMAND, 2, header.command);
	if (ret == 0)
		ret = ep_set(ep, VFN_REGION_CONFIG, ep->msix + EP_MSIX_CONTROL, 2,
			header.msix_control);
	ep_state_free(ep);
	ep->driver_ok = header.driver_ok;
	return ret < 0 ? -EIO : 0;
}

/* ---- moves ---- */

static int
stop(struct vfn_endpoint *ep)
{
	int ret;

	EP_SET(ep, VENDOR, suspend, 1);
	ret = EP_WAIT(ep, VENDOR, suspend, 1);
	if (ret < 0)
		EP_SET(ep, VENDOR, suspend, 0);
	return ret;
}

static int
go_on(struct vfn_endpoint *ep)
{
	bool loaded = ep->driver_ok;
	uint32_t status = EP_GET(ep, COMMON, device_status);
	int ret = 0;

	if (loaded) {
		EP_SET(ep, COMMON, device_status, status | VIRTIO_CONFIG_S_DRIVER_OK);
		ret = EP_WAIT(
			ep, COMMON, device_status, status | VIRTIO_CONFIG_S_DRIVER_OK);
	}
	if (ret < 0)
		return -EIO;
	ep->driver_ok = false;
	EP_SET(ep, VENDOR, suspend, 0);
	/* Interrupts that were on their way to the driver may not have come along. */
	if (loaded)
		ep_irq_remind(ep);
	return 0;
}

static int
move(struct vfn_endpoint *ep, enum vfio_device_mig_state from, enum vfio_device_mig_state to)
{
	if (from == VFIO_DEVICE_STATE_RUNNING)
		return stop(ep);
	if (from == VFIO_DEVICE_STATE_RESUMING)
		return state_load(ep);
	if (to == VFIO_DEVICE_STATE_RUNNING)
		return go_on(ep);
	if (to == VFIO_DEVICE_STATE_STOP_COPY)
		return state_save(ep);
	if (to == VFIO_DEVICE_STATE_RESUMING)
		return state_new(ep);
	/* From STOP_COPY. */
	ep_state_free(ep);
	return 0;
}

int
ep_migrate(void *device, enum vfio_device_mig_state from, enum vfio_device_mig_state to)
{
	struct vfn_endpoint *ep = device;
	int ret;

	ep_change(ep);
	ret = move(ep, from, to);
	if (ret == -EIO)
		to = VFIO_DEVICE_STATE_ERROR;
	if (ret == 0 || ret == -EIO)
		__atomic_store_n(&ep->state, to, __ATOMIC_RELAXED);
	return ret;
}
