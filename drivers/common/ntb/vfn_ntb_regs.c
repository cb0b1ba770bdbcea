/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Accesses of registers as messages: which of them virtio-msg has one for. On the threads of
 * whoever uses the link.
 */

#include <errno.h>
#include <string.h>

#include "vfn_ntb_private.h"

#define AT(field)	 offsetof(struct vfn_common_cfg, field)
#define SIZE(field)	 sizeof(((struct vfn_common_cfg *)NULL)->field)
#define IS(field)	 (offset == AT(field) && len == SIZE(field))
#define BYTES_MAX	 VFN_MSG_REG_MAX
#define REJECTED_AT_MOST 8

static const uint64_t sizes[] = {
	[VFN_REGION_BAR0] = VFN_BAR0_SIZE,
	[VFN_REGION_BAR1] = VFN_BAR1_SIZE,
	[VFN_REGION_BAR2] = VFN_BAR2_SIZE,
	[VFN_REGION_CONFIG] = VFN_PCI_CONFIG_SIZE,
};

static bool
is_inside(unsigned int region, uint64_t offset, size_t len)
{
	return region < sizeof(sizes) / sizeof(sizes[0]) && len > 0 && offset < sizes[region] &&
		len <= sizes[region] - offset;
}

static void
begin(struct ntb_link *e, union vfn_message *m, uint8_t type, uint8_t id)
{
	const bool event = type & VFN_MSG_BUS ? id >= 0xc0 : id >= 0x40;

	if (!event && ++e->token == 0)
		e->token = 1;
	vfn_msg_init(m, type, id, event ? 0 : e->token);
}

/* ---- registers without a message of their own ---- */

static int
get_reg(struct ntb_link *e, unsigned int region, uint64_t offset, uint8_t *buf, size_t len)
{
	union vfn_message m;
	int ret;

	while (len > 0) {
		size_t n = len < BYTES_MAX ? len : BYTES_MAX;

		begin(e, &m, VFN_MSG_BUS, VFN_MSG_BUS_GET_REG);
		m.reg = (struct vfn_msg_reg){.offset = offset, .region = region, .len = n};
		ret = ntb_link_call(e, &m);
		if (ret < 0)
			return ret;
		if (m.reg.len != n)
			return -EINVAL;
		memcpy(buf, m.reg.data, n);
		buf += n;
		offset += n;
		len -= n;
	}
	return 0;
}

static int
set_reg(struct ntb_link *e, unsigned int region, uint64_t offset, const uint8_t *buf, size_t len)
{
	union vfn_message m;
	int ret = 0;

	while (len > 0 && ret == 0) {
		size_t n = len < BYTES_MAX ? len : BYTES_MAX;

		begin(e, &m, VFN_MSG_BUS, VFN_MSG_BUS_SET_REG);
		m.reg = (struct vfn_msg_reg){.offset = offset, .region = region, .len = n};
		memcpy(m.reg.data, buf, n);
		m.header.msg_size += n;
		ret = ntb_link_post(e, &m);
		buf += n;
		offset += n;
		len -= n;
	}
	return ret;
}

/* ---- the common structure ---- */

/* Changed by a reset, by device parts and through the window of 4.1.4.9. */
static int
learn(struct ntb_link *e)
{
#define LEARN(field, to) \
	get_reg(e, VFN_REGION_BAR0, VFN_OFF_COMMON + AT(field), (uint8_t *)(to), SIZE(field))
	int ret = 0;

	if (!e->known)
		ret = LEARN(queue_select, &e->queue);
	if (!e->known && ret == 0)
		ret = LEARN(device_feature_select, &e->device_block);
	if (!e->known && ret == 0)
		ret = LEARN(driver_feature_select, &e->driver_block);
	e->known = ret == 0;
	return ret;
#undef LEARN
}

static int
get_features(struct ntb_link *e, uint32_t *v)
{
	union vfn_message m;
	int ret = learn(e);

	if (ret < 0)
		return ret;
	begin(e, &m, 0, VFN_MSG_GET_DEVICE_FEATURES);
	m.features.index = e->device_block;
	m.features.num = 1;
	ret = ntb_link_call(e, &m);
	if (ret == 0)
		*v = m.features.num >= 1 ? m.features.block[0] : 0;
	return ret;
}

static int
get_config(struct ntb_link *e, uint32_t offset, void *buf, size_t len)
{
	union vfn_message m;
	int ret;

	begin(e, &m, 0, VFN_MSG_GET_CONFIG);
	m.get_config = (struct vfn_msg_get_config){offset, len};
	ret = ntb_link_call(e, &m);
	if (ret < 0)
		return ret;
	e->generation = m.config.generation;
	if (m.config.size != len)
		return -EINVAL;
	memcpy(buf, m.config.data, len);
	return 0;
}

/* A device refuses what was written by who has not seen its last change. */
static int
set_config(struct ntb_link *e, uint32_t offset, const void *buf, size_t len)
{
	union vfn_message m;
	unsigned int i;
	int ret = 0;

	for (i = 0; i < REJECTED_AT_MOST && ret == 0; i++) {
		begin(e, &m, 0, VFN_MSG_SET_CONFIG);
		m.config = (struct vfn_msg_config){e->generation, offset, len};
		memcpy(m.config.data, buf, len);
		m.header.msg_size += len;
		ret = ntb_link_call(e, &m);
		if (ret == 0 && (m.config.size == len || m.config.generation == e->generation))
			return m.config.size == len ? 0 : -EINVAL;
		e->generation = m.config.generation;
	}
	return ret < 0 ? ret : -EBUSY;
}

static int
get_status(struct ntb_link *e, uint8_t *v)
{
	union vfn_message m;
	int ret;

	begin(e, &m, 0, VFN_MSG_GET_DEVICE_STATUS);
	ret = ntb_link_call(e, &m);
	if (ret == 0)
		*v = m.status.status;
	return ret;
}

static int
get_vqueue(struct ntb_link *e, struct vfn_msg_vqueue *vq)
{
	union vfn_message m;
	int ret = learn(e);

	if (ret < 0)
		return ret;
	begin(e, &m, 0, VFN_MSG_GET_VQUEUE);
	m.index.index = e->queue;
	ret = ntb_link_call(e, &m);
	if (ret == 0)
		*vq = m.vqueue;
	return ret;
}

/* All that it is set up with: what was written to its registers. */
static int
enable(struct ntb_link *e)
{
	struct vfn_msg_vqueue vq;
	union vfn_message m;
	int ret = get_vqueue(e, &vq);

	if (ret < 0)
		return ret;
	begin(e, &m, 0, VFN_MSG_SET_VQUEUE);
	vq.max_size = 0;
	m.vqueue = vq;
	return ntb_link_post(e, &m);
}

static int
read_common(struct ntb_link *e, uint64_t offset, void *buf, size_t len)
{
	const uint64_t from = AT(queue_desc_lo), to = AT(queue_notify_data);
	struct vfn_msg_vqueue vq = {0};
	uint32_t v = 0;
	uint8_t status = 0, none;
	union vfn_message m;
	int ret;

	if (IS(device_feature)) {
		ret = get_features(e, &v);
	} else if (IS(device_status)) {
		ret = get_status(e, &status);
		v = status;
	} else if (IS(num_queues)) {
		begin(e, &m, 0, VFN_MSG_GET_DEVICE_INFO);
		ret = ntb_link_call(e, &m);
		v = m.info.max_vqs;
	} else if (IS(config_generation)) {
		ret = get_config(e, 0, &none, 0);
		v = e->generation;
	} else if (IS(queue_size)) {
		ret = get_vqueue(e, &vq);
		v = vq.size;
	} else if (offset >= from && offset < to && offset % 4 == 0 && len == 4) {
		/* The three addresses are in the same order in both. */
		ret = get_vqueue(e, &vq);
		memcpy(&v, (uint8_t *)&vq.desc + (offset - from), len);
	} else {
		return get_reg(e, VFN_REGION_BAR0, VFN_OFF_COMMON + offset, buf, len);
	}
	memcpy(buf, &v, len);
	return ret;
}

static int
write_common(struct ntb_link *e, uint64_t offset, const void *buf, size_t len)
{
	union vfn_message m;
	uint32_t v = 0;
	int ret;

	memcpy(&v, buf, len <= sizeof(v) ? len : sizeof(v));
	if (IS(driver_feature)) {
		ret = learn(e);
		if (ret < 0)
			return ret;
		begin(e, &m, 0, VFN_MSG_SET_DRIVER_FEATURES);
		m.features.index = e->driver_block;
		m.features.num = 1;
		m.features.block[0] = v;
		m.header.msg_size += sizeof(v);
		return ntb_link_post(e, &m);
	}
	if (IS(device_status)) {
		begin(e, &m, 0, VFN_MSG_SET_DEVICE_STATUS);
		m.status.status = v;
		e->known = e->known && v != 0;
		return ntb_link_post(e, &m);
	}
	if (IS(queue_enable) && v == 1)
		return enable(e);
	if (IS(queue_reset) && v == 1) {
		ret = learn(e);
		if (ret < 0)
			return ret;
		begin(e, &m, 0, VFN_MSG_RESET_VQUEUE);
		m.index.index = e->queue;
		return ntb_link_post(e, &m);
	}
	/* Messages have in them what these are for; the function knows them, too. */
	if (IS(queue_select))
		e->queue = v;
	if (IS(device_feature_select))
		e->device_block = v;
	if (IS(driver_feature_select))
		e->driver_block = v;
	return set_reg(e, VFN_REGION_BAR0, VFN_OFF_COMMON + offset, buf, len);
}

/* ---- all of them ---- */

/* An access that is inside a structure of BAR 0. */
static bool
is_in(unsigned int region, uint64_t offset, size_t len, uint64_t from, uint64_t size)
{
	return region == VFN_REGION_BAR0 && offset >= from && offset - from < size &&
		len <= size - (offset - from);
}
#define IN_COMMON(o, l) is_in(region, o, l, VFN_OFF_COMMON, sizeof(struct vfn_common_cfg))
#define IN_CONFIG(o, l) is_in(region, o, l, VFN_OFF_DEVICE, BYTES_MAX)

int
ntb_link_read(struct vfn_link *link, unsigned int region, uint64_t offset, void *buf, size_t len)
{
	struct ntb_link *e = ntb_link_of(link);
	int ret;

	if (!is_inside(region, offset, len))
		return -EINVAL;
	pthread_mutex_lock(&e->call);
	if (IN_COMMON(offset, len))
		ret = read_common(e, offset - VFN_OFF_COMMON, buf, len);
	else if (IN_CONFIG(offset, len))
		ret = get_config(e, offset - VFN_OFF_DEVICE, buf, len);
	else
		ret = get_reg(e, region, offset, buf, len);
	pthread_mutex_unlock(&e->call);
	return ret;
}

int
ntb_link_write(
	struct vfn_link *link, unsigned int region, uint64_t offset, const void *buf, size_t len)
{
	struct ntb_link *e = ntb_link_of(link);
	uint64_t queue = offset / VFN_NOTIFY_STEP;
	uint32_t v = 0;
	int ret;

	if (!is_inside(region, offset, len))
		return -EINVAL;
	if (region == VFN_REGION_BAR2) {
		if (offset % VFN_NOTIFY_STEP != 0 || queue >= VFN_MAX_QUEUES ||
			(len != 2 && len != 4))
			return -EINVAL;
		memcpy(&v, buf, len);
		ntb_link_notify(e, queue, v, len);
		return 0;
	}
	pthread_mutex_lock(&e->call);
	if (IN_COMMON(offset, len))
		ret = write_common(e, offset - VFN_OFF_COMMON, buf, len);
	else if (IN_CONFIG(offset, len))
		ret = set_config(e, offset - VFN_OFF_DEVICE, buf, len);
	else
		ret = set_reg(e, region, offset, buf, len);
	if (region == VFN_REGION_CONFIG ||
		(region == VFN_REGION_BAR0 &&
			offset == VFN_OFF_VENDOR + offsetof(struct vfn_vendor_cfg, parts_control)))
		e->known = false;
	pthread_mutex_unlock(&e->call);
	return ret;
}
