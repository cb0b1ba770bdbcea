/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Messages of a driver at the other side of a bridge, as accesses of registers and calls of a link.
 * Their form is checked already. On the server's thread.
 */

#include <errno.h>
#include <string.h>

#include <linux/virtio_config.h>

#include <rte_common.h>

#include <vfn_link.h>

#include "ntb.h"

#define PCI_COMMAND	   0x04
#define PCI_COMMAND_MASTER 0x04
#define MSIX_CONTROL	   2
#define MSIX_ON		   0x8000
#define NO_VECTOR	   0xffff
#define VECTOR_CONFIG	   0

static struct vfn_msg_config *
config_answer(struct vfn_ntb_server *s, union vfn_message *answer, uint32_t offset, uint32_t size)
{
	answer->config.generation = ns_get(s, NS_COMMON(config_generation));
	answer->config.offset = offset;
	answer->config.size = size;
	answer->header.msg_size += size;
	return &answer->config;
}

static bool
config_fits(uint32_t offset, uint32_t size)
{
	return size <= VFN_MSG_REG_MAX && offset <= VFN_OFF_VENDOR - VFN_OFF_DEVICE - size;
}

static bool
get_config(struct vfn_ntb_server *s, const struct vfn_msg_get_config *m, union vfn_message *answer)
{
	struct vfn_msg_config *a = &answer->config;
	uint32_t size = m->size;

	if (!config_fits(m->offset, size) ||
		(size > 0 &&
			s->link->ops->read(s->link, VFN_REGION_BAR0, VFN_OFF_DEVICE + m->offset,
				a->data, size) < 0))
		size = 0;
	config_answer(s, answer, m->offset, size);
	return true;
}

static bool
set_config(struct vfn_ntb_server *s, const struct vfn_msg_config *m, union vfn_message *answer)
{
	bool good = config_fits(m->offset, m->size) &&
		m->generation == ns_get(s, NS_COMMON(config_generation)) &&
		s->link->ops->write(s->link, VFN_REGION_BAR0, VFN_OFF_DEVICE + m->offset, m->data,
			m->size) == 0;

	memcpy(config_answer(s, answer, m->offset, good ? m->size : 0)->data, m->data,
		good ? m->size : 0);
	return true;
}

static bool
get_info(struct vfn_ntb_server *s, union vfn_message *answer)
{
	uint32_t size = 0;
	uint8_t any;

	while (config_fits(size, 1) &&
		s->link->ops->read(
			s->link, VFN_REGION_BAR0, VFN_OFF_DEVICE + size, &any, sizeof(any)) == 0)
		size++;
	answer->info = (struct vfn_msg_device_info){
		.device_id = ns_get(s, VFN_REGION_CONFIG, 2, 2) - VFN_PCI_DEVICE,
		.vendor_id = ns_get(s, VFN_REGION_CONFIG, 0, 2),
		.nb_feature_bits = 64,
		.config_size = size,
		.max_vqs = s->nb_queues,
	};
	return true;
}

static bool
get_features(struct vfn_ntb_server *s, const struct vfn_msg_features *m, union vfn_message *answer)
{
	const uint32_t room = (VFN_MSG_MAX - VFN_MSG_SIZE(features)) / sizeof(uint32_t);
	struct vfn_msg_features *a = &answer->features;
	uint32_t i;

	a->index = m->index;
	a->num = RTE_MIN(m->num, room);
	for (i = 0; i < a->num; i++) {
		ns_set(s, NS_COMMON(device_feature_select), m->index + i);
		a->block[i] = ns_get(s, NS_COMMON(device_feature));
	}
	answer->header.msg_size += a->num * sizeof(a->block[0]);
	return true;
}

static bool
set_features(struct vfn_ntb_server *s, const struct vfn_msg_features *m)
{
	uint32_t i;

	for (i = 0; i < m->num; i++) {
		ns_set(s, NS_COMMON(driver_feature_select), m->index + i);
		ns_set(s, NS_COMMON(driver_feature), m->block[i]);
	}
	return true;
}

/* One that the bus has, and that is not masked. */
static int
have_vector(struct vfn_ntb_server *s, unsigned int vector)
{
	int ret = vector < VFN_MAX_VECTORS ? ns_irq(s, vector, true) : -EINVAL;

	return ret < 0 ? ret :
			 ns_set(s, VFN_REGION_BAR1, VFN_OFF_MSIX_TABLE + 16 * vector + 12, 4, 0);
}

/*
 * A driver that knows virtio-msg and no vectors: the bus has them for it, one for each queue, and
 * what they signal are the standard's events.
 */
static void
have_vectors(struct vfn_ntb_server *s)
{
	const unsigned int at = s->msix + MSIX_CONTROL;

	if (s->vectors || s->has_vectors || s->msix == 0)
		return;
	s->has_vectors = true;
	ns_set(s, VFN_REGION_CONFIG, PCI_COMMAND, 2,
		ns_get(s, VFN_REGION_CONFIG, PCI_COMMAND, 2) | PCI_COMMAND_MASTER);
	ns_set(s, VFN_REGION_CONFIG, at, 2, ns_get(s, VFN_REGION_CONFIG, at, 2) | MSIX_ON);
	have_vector(s, VECTOR_CONFIG);
	ns_set(s, NS_COMMON(config_msix_vector), VECTOR_CONFIG);
}

static bool
set_status(struct vfn_ntb_server *s, uint32_t status, union vfn_message *answer)
{
	if (status & VIRTIO_CONFIG_S_DRIVER)
		have_vectors(s);
	if (status == 0)
		s->has_vectors = false;
	ns_set(s, NS_COMMON(device_status), status);
	answer->status.status = ns_get(s, NS_COMMON(device_status));
	return true;
}

static bool
select_queue(struct vfn_ntb_server *s, uint32_t index)
{
	/* As a register has it: none is selected by numbers that are none. */
	ns_set(s, NS_COMMON(queue_select), RTE_MIN(index, UINT16_MAX));
	return index < s->nb_queues;
}

static bool
get_vqueue(struct vfn_ntb_server *s, uint32_t index, union vfn_message *answer)
{
	struct vfn_msg_vqueue *a = &answer->vqueue;
#define ADDRESS(area) \
	((uint64_t)ns_get(s, NS_COMMON(queue_##area##_hi)) << 32 | \
		ns_get(s, NS_COMMON(queue_##area##_lo)))

	a->index = index;
	if (!select_queue(s, index))
		return true;
	a->max_size = s->max_size[index];
	a->size = ns_get(s, NS_COMMON(queue_size));
	a->desc = ADDRESS(desc);
	a->driver = ADDRESS(driver);
	a->device = ADDRESS(device);
#undef ADDRESS
	return true;
}

static bool
set_vqueue(struct vfn_ntb_server *s, const struct vfn_msg_vqueue *m)
{
	if (!select_queue(s, m->index) || m->size > UINT16_MAX)
		return true;
	if (s->has_vectors && have_vector(s, m->index + 1) == 0)
		ns_set(s, NS_COMMON(queue_msix_vector), m->index + 1);
	ns_set(s, NS_COMMON(queue_size), m->size);
	ns_set(s, NS_COMMON(queue_desc_lo), (uint32_t)m->desc);
	ns_set(s, NS_COMMON(queue_desc_hi), m->desc >> 32);
	ns_set(s, NS_COMMON(queue_driver_lo), (uint32_t)m->driver);
	ns_set(s, NS_COMMON(queue_driver_hi), m->driver >> 32);
	ns_set(s, NS_COMMON(queue_device_lo), (uint32_t)m->device);
	ns_set(s, NS_COMMON(queue_device_hi), m->device >> 32);
	ns_set(s, NS_COMMON(queue_enable), 1);
	return true;
}

static bool
reset_vqueue(struct vfn_ntb_server *s, uint32_t index)
{
	if (select_queue(s, index))
		ns_set(s, NS_COMMON(queue_reset), 1);
	return true;
}

static bool
transport(struct vfn_ntb_server *s, const union vfn_message *m, union vfn_message *answer)
{
	switch (m->header.msg_id) {
	case VFN_MSG_GET_DEVICE_INFO:
		return get_info(s, answer);
	case VFN_MSG_GET_DEVICE_FEATURES:
		return get_features(s, &m->features, answer);
	case VFN_MSG_SET_DRIVER_FEATURES:
		return set_features(s, &m->features);
	case VFN_MSG_GET_CONFIG:
		return get_config(s, &m->get_config, answer);
	case VFN_MSG_SET_CONFIG:
		return set_config(s, &m->config, answer);
	case VFN_MSG_GET_DEVICE_STATUS:
		answer->status.status = ns_get(s, NS_COMMON(device_status));
		return true;
	case VFN_MSG_SET_DEVICE_STATUS:
		return set_status(s, m->status.status, answer);
	case VFN_MSG_GET_VQUEUE:
		return get_vqueue(s, m->index.index, answer);
	case VFN_MSG_SET_VQUEUE:
		return set_vqueue(s, &m->vqueue);
	case VFN_MSG_RESET_VQUEUE:
		return reset_vqueue(s, m->index.index);
	case VFN_MSG_GET_SHM:
		/* There is none. */
		answer->shm.index = m->index.index;
		return true;
	case VFN_MSG_EVENT_AVAIL:
		ns_notify(s, m->event_avail.index,
			m->event_avail.index | m->event_avail.next << 16 |
				(m->event_avail.next & UINT32_C(0x80000000)),
			m->event_avail.next != 0 ? 4 : 2);
	}
	return false;
}

/* ---- the bus's ---- */

/* What the function cannot do here: its log is bits that others set, too, in memory that is not
 * read. */
static void
hide_dirty_log(const struct vfn_msg_reg *m, uint8_t *data)
{
	const uint32_t at = VFN_OFF_VENDOR + offsetof(struct vfn_vendor_cfg, capabilities);

	if (m->region == VFN_REGION_BAR0 && m->offset <= at && at - m->offset < m->len)
		data[at - m->offset] &= ~VFN_CAP_DIRTY_LOG;
}

static bool
get_reg(struct vfn_ntb_server *s, const struct vfn_msg_reg *m, union vfn_message *answer)
{
	struct vfn_msg_reg *a = &answer->reg;

	*a = (struct vfn_msg_reg){.offset = m->offset, .region = m->region};
	if (m->len == 0 || m->len > VFN_MSG_REG_MAX ||
		s->link->ops->read(s->link, m->region, m->offset, a->data, m->len) < 0)
		return true;
	hide_dirty_log(m, a->data);
	a->len = m->len;
	answer->header.msg_size += m->len;
	return true;
}

/* Where in a window it is, for what it may be used; NULL: nowhere. */
static uint8_t *
window_host(struct vfn_ntb_server *s, const struct vfn_msg_dma *m)
{
	if (m->len == 0)
		return NULL;
	if (m->flags == VFN_MSG_DMA_READ)
		return ntb_host(&s->ntb->in, m->bus, m->len);
	return m->flags == VFN_MSG_DMA_WRITE ? ntb_host(&s->ntb->out, m->bus, m->len) : NULL;
}

static int
dma_map(struct vfn_ntb_server *s, const struct vfn_msg_dma *m)
{
	struct vfn_dma_map map = {
		.space = VFN_DMA_GUEST,
		.iova = m->iova,
		.len = m->len,
		.host = window_host(s, m),
		.fd = -1,
		.readable = m->flags == VFN_MSG_DMA_READ,
		.writable = m->flags == VFN_MSG_DMA_WRITE,
		.io = &s->io,
	};

	if (m->space != VFN_DMA_GUEST)
		return -ENOTSUP;
	if (map.host == NULL || m->iova + (m->len - 1) < m->iova)
		return -EINVAL;
	return s->link->ops->dma_map(s->link, &map);
}

static int
dma_unmap(struct vfn_ntb_server *s, const struct vfn_msg_dma *m)
{
	if (m->space > VFN_DMA_OWN)
		return -EINVAL;
	return s->link->ops->dma_unmap(s->link, m->space, m->iova, m->len);
}

static int
set_irq(struct vfn_ntb_server *s, const struct vfn_msg_number *m)
{
	return m->number <= VFN_VECTOR_INTX ? ns_irq(s, m->number, m->on) : -EINVAL;
}

static int
set_control(struct vfn_ntb_server *s, const struct vfn_msg_control *m)
{
	struct vfn_endpoint_control control = {
		.features = m->features, .mtu = m->mtu, .max_pairs = m->max_pairs};
	int ret;

	memcpy(control.mac, m->mac, sizeof(control.mac));
	ret = s->offer != NULL ? s->offer(s->fn, &control, NULL) : -EPERM;
	if (ret == 0)
		ns_learn_sizes(s);
	return ret;
}

static bool
result(union vfn_message *answer, int ret)
{
	answer->result.error = ret;
	return true;
}

static bool
bus(struct vfn_ntb_server *s, const union vfn_message *m, union vfn_message *answer)
{
	/* Whoever knows our messages knows vectors. */
	if (m->header.msg_id >= VFN_MSG_BUS_OURS)
		s->vectors = true;
	switch (m->header.msg_id) {
	case VFN_MSG_BUS_GET_DEVICES:
		answer->found.offset = m->devices.offset;
		answer->found.num = 8;
		answer->found.bits[0] = m->devices.offset == 0;
		return true;
	case VFN_MSG_BUS_PING:
		answer->ping = m->ping;
		return !(m->header.type & VFN_MSG_RESPONSE);
	case VFN_MSG_BUS_GET_REG:
		return get_reg(s, &m->reg, answer);
	case VFN_MSG_BUS_DMA_MAP:
		return result(answer, dma_map(s, &m->dma));
	case VFN_MSG_BUS_DMA_UNMAP:
		return result(answer, dma_unmap(s, &m->dma));
	case VFN_MSG_BUS_SET_IRQ:
		return result(answer, set_irq(s, &m->number));
	case VFN_MSG_BUS_SET_DOORBELL:
		return result(answer, ns_doorbell(s, m->number.number, m->number.on));
	case VFN_MSG_BUS_SET_CONTROL:
		return result(answer, set_control(s, &m->control));
	case VFN_MSG_BUS_SET_REG:
		if (s->link->ops->write(
			    s->link, m->reg.region, m->reg.offset, m->reg.data, m->reg.len) < 0)
			ns_count(&s->info.refused);
	}
	return false;
}

bool
ns_handle(struct vfn_ntb_server *s, const union vfn_message *msg, union vfn_message *answer)
{
	vfn_msg_init(answer, (msg->header.type & VFN_MSG_BUS) | VFN_MSG_RESPONSE,
		msg->header.msg_id, msg->header.token);
	return msg->header.type & VFN_MSG_BUS ? bus(s, msg, answer) : transport(s, msg, answer);
}
