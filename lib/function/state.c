/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The state of the whole function as bytes, got, checked and set. What is set comes from files and
 * from other processes and is not trusted: it is carried out on a copy of the function, which
 * becomes the function only if nothing was wrong. Control.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ether.h>

#include "function.h"
#include "vfn_state.h"

/* ---- getting ---- */

struct writer {
	uint8_t *at;
	size_t left;
	bool full;
};

static void
put(struct writer *w, struct vfn_part part, const void *value, uint32_t length)
{
	if (w->full || w->left < sizeof(part) + length) {
		w->full = true;
		return;
	}
	part.length = length;
	memcpy(w->at, &part, sizeof(part));
	memcpy(w->at + sizeof(part), value, length);
	w->at += sizeof(part) + length;
	w->left -= sizeof(part) + length;
}

/* Fields of the common configuration that no other part has: where each is in the function. */
static const struct common_field {
	uint16_t offset, len, at;
	bool read_only;
} common_fields[] = {
#define FIELD(register, member, ro) \
	{ \
		offsetof(struct vfn_common_cfg, register), \
			sizeof(((struct vfn_common_cfg *)NULL)->register), \
			offsetof(struct vfn_function, member), ro \
	}
	FIELD(device_feature_select, device_feature_select, false),
	FIELD(driver_feature_select, driver_feature_select, false),
	FIELD(config_msix_vector, config_vector, false),
	FIELD(num_queues, nb_queues, true),
	FIELD(queue_select, queue_select, false),
#undef FIELD
};
#define NB_COMMON_FIELDS (sizeof(common_fields) / sizeof(common_fields[0]))

static void
put_queue(struct writer *w, const struct vfn_queue *q)
{
	struct vringh_state position = q->enabled ? vringh_get_state(&q->vr) : q->state;
	struct vfn_part_vq_cfg cfg = {
		.size = q->size,
		.vector = q->vector,
		.enabled = q->enabled,
		.desc = q->area[0],
		.driver = q->area[1],
		.device = q->area[2],
	};
	struct vfn_part_vq_notify notify = {.notify_off = q->index, .notify_data = q->index};
	struct vfn_part_vq_state state = {
		.avail = position.avail, .used = position.used, .log = q->log};
	struct vfn_part part = {.selector.queue = q->index};

	part.type = VFN_PART_VQ_CFG;
	put(w, part, &cfg, sizeof(cfg));
	part.type = VFN_PART_VQ_NOTIFY;
	put(w, part, &notify, sizeof(notify));
	part.type = VFN_PART_VQ_STATE;
	put(w, part, &state, sizeof(state));
}

static void
put_command(struct writer *w, uint8_t class, uint8_t command, const void *data, uint32_t len)
{
	struct vfn_part part = {.type = VFN_PART_NET_CVQ};

	part.selector.cvq.class = class;
	part.selector.cvq.command = command;
	put(w, part, data, len);
}

/* As in VIRTIO_NET_CTRL_MAC_TABLE_SET; one that did not fit becomes one that does not. */
static size_t
table_write(const struct vfn_mac_table *table, uint8_t *to)
{
	uint32_t n = table->all ? VFN_MAC_TABLE + 1 : table->n;

	memset(to + sizeof(n), 0, n * RTE_ETHER_ADDR_LEN);
	memcpy(to, &n, sizeof(n));
	memcpy(to + sizeof(n), table->addr, table->n * RTE_ETHER_ADDR_LEN);
	return sizeof(n) + n * RTE_ETHER_ADDR_LEN;
}

/* What the driver has said through the control queue, as the commands that would say it again. */
static void
put_net(struct writer *w, const struct vfn_function *fn)
{
	const struct vfn_filter *f = &fn->filter;
	uint8_t tables[2 * (sizeof(uint32_t) + (VFN_MAC_TABLE + 1) * RTE_ETHER_ADDR_LEN)];
	uint64_t offloads = fn->driver_features & VFN_CTRL_GUEST_OFFLOADS & ~fn->offloads_off;
	size_t len;
	uint8_t cmd;

	for (cmd = 0; cmd < sizeof(f->mode); cmd++)
		if (vfn_has(fn,
			    cmd <= VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX :
								 VIRTIO_NET_F_CTRL_RX_EXTRA))
			put_command(
				w, VIRTIO_NET_CTRL_RX, cmd, &f->mode[cmd], sizeof(f->mode[cmd]));
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_RX)) {
		len = table_write(&f->unicast, tables);
		len += table_write(&f->multicast, tables + len);
		put_command(w, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, len);
	}
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_MAC_ADDR))
		put_command(w, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, fn->config.mac,
			sizeof(fn->config.mac));
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_VLAN))
		put_command(w, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, f->vlan,
			sizeof(f->vlan));
	if (vfn_has(fn, VIRTIO_NET_F_MQ))
		put_command(w, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &fn->curr_pairs,
			sizeof(fn->curr_pairs));
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
		put_command(w, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
			&offloads, sizeof(offloads));
}

/* In the order of virtio 1.4 ("Device parts order"). 0, or -ENOSPC if the window is too small. */
static int
state_get(struct vfn_function *fn)
{
	struct vfn_state_header header = {.magic = VFN_STATE_MAGIC, .version = VFN_STATE_VERSION};
	uint8_t *parts = fn->state + sizeof(header);
	struct writer w = {.at = parts, .left = sizeof(fn->state) - sizeof(header)};
	unsigned int i;

	/* A cut through what the pollers do: between two bursts nothing is in flight. */
	vfn_port_stop(fn);
	put(&w, (struct vfn_part){.type = VFN_PART_DEV_FEATURES, .flags = VFN_PART_OPTIONAL},
		&fn->device_features, sizeof(fn->device_features));
	put(&w, (struct vfn_part){.type = VFN_PART_DRV_FEATURES}, &fn->driver_features,
		sizeof(fn->driver_features));
	for (i = 0; i < NB_COMMON_FIELDS; i++)
		put(&w,
			(struct vfn_part){.type = VFN_PART_COMMON_CFG,
				.selector.offset = common_fields[i].offset},
			(const uint8_t *)fn + common_fields[i].at, common_fields[i].len);
	put(&w, (struct vfn_part){.type = VFN_PART_STATUS}, &fn->status, sizeof(fn->status));
	for (i = 0; i < fn->nb_queues; i++)
		put_queue(&w, &fn->queue[i]);
	put_net(&w, fn);
	vfn_port_start(fn);
	if (w.full)
		return -ENOSPC;
	header.length = w.at - parts;
	header.checksum = vfn_state_checksum(parts, header.length);
	memcpy(fn->state, &header, sizeof(header));
	fn->state_len = sizeof(header) + header.length;
	return 0;
}

/* ---- setting ---- */

/* Which parts there were; of a queue, or but once. */
enum seen {
	SEEN_FEATURES = 1 << 0,
	SEEN_STATUS = 1 << 1,
	SEEN_VQ_CFG = 1 << 0,
	SEEN_VQ_STATE = 1 << 1,
};

struct setting {
	const struct vfn_function *real;
	struct vfn_function *fn; /* the copy */
	bool check;		 /* the rings need not be mapped */
	unsigned int seen;
	unsigned int seen_vq[VFN_MAX_QUEUES];
};

#define REFUSE(s, error, fmt, ...) \
	(FN_LOG(ERR, (s)->real, "state refused: " fmt, ##__VA_ARGS__), -(error))

static bool
all_zero(const uint8_t *bytes, size_t len)
{
	while (len > 0 && bytes[len - 1] == 0)
		len--;
	return len == 0;
}

static int
wrong_length(const struct setting *s, const struct vfn_part *part, size_t length)
{
	return REFUSE(
		s, EINVAL, "part 0x%x has %u bytes, not %zu", part->type, part->length, length);
}

/* Copy the value if it has the size of a variable. */
#define TAKE(part, value, variable) \
	((part)->length == sizeof(variable) && memcpy(&(variable), value, sizeof(variable)) != NULL)

static int
set_features(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	uint64_t features;

	if (!TAKE(part, value, features))
		return wrong_length(s, part, sizeof(features));
	if (part->type == VFN_PART_DEV_FEATURES) {
		if (features == s->fn->device_features)
			return 0;
		if (part->flags & VFN_PART_OPTIONAL) {
			FN_LOG(DEBUG, s->real,
				"state of a function that offers 0x%" PRIx64 ", not 0x%" PRIx64,
				features, s->fn->device_features);
			return 0;
		}
		return REFUSE(s, ENOTSUP, "it is of a function that offers 0x%" PRIx64, features);
	}
	if (features & ~s->fn->device_features)
		return REFUSE(s, ENOTSUP, "features 0x%" PRIx64 " are not offered",
			features & ~s->fn->device_features);
	s->fn->driver_features = features;
	s->seen |= SEEN_FEATURES;
	return 0;
}

static int
set_common(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	const struct common_field *f = common_fields;

	while (f < common_fields + NB_COMMON_FIELDS && f->offset != part->selector.offset)
		f++;
	if (f == common_fields + NB_COMMON_FIELDS)
		return part->flags & VFN_PART_OPTIONAL ?
			0 :
			REFUSE(s, ENOTSUP, "common configuration at %u is not known",
				part->selector.offset);
	if (part->length != f->len)
		return wrong_length(s, part, f->len);
	if (f->read_only && memcmp((uint8_t *)s->fn + f->at, value, f->len) != 0)
		return REFUSE(s, EINVAL, "it is of a function with another number of queues");
	memcpy((uint8_t *)s->fn + f->at, value, f->len);
	if (s->fn->config_vector >= vfn_nb_vectors(s->fn) && s->fn->config_vector != NO_VECTOR)
		return REFUSE(s, EINVAL, "there is no vector %u", s->fn->config_vector);
	return 0;
}

static int
set_vq_cfg(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	struct vfn_queue *q = &s->fn->queue[part->selector.queue];
	struct vfn_part_vq_cfg cfg;

	if (!TAKE(part, value, cfg))
		return wrong_length(s, part, sizeof(cfg));
	if (cfg.reserved != 0 || cfg.enabled > 1 ||
		(cfg.vector >= vfn_nb_vectors(s->fn) && cfg.vector != NO_VECTOR))
		return REFUSE(s, EINVAL, "queue %u: configuration that cannot be", q->index);
	q->size = cfg.size;
	q->vector = cfg.vector;
	q->enabled = cfg.enabled;
	q->area[0] = cfg.desc;
	q->area[1] = cfg.driver;
	q->area[2] = cfg.device;
	s->seen_vq[q->index] |= SEEN_VQ_CFG;
	return 0;
}

static int
set_vq_notify(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	struct vfn_part_vq_notify notify;

	if (!TAKE(part, value, notify))
		return wrong_length(s, part, sizeof(notify));
	if (notify.notify_off != part->selector.queue ||
		notify.notify_data != part->selector.queue ||
		!all_zero(notify.reserved, sizeof(notify.reserved)))
		return REFUSE(s, EINVAL, "queue %u: its doorbell is elsewhere here",
			part->selector.queue);
	return 0;
}

static int
set_vq_state(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	struct vfn_queue *q = &s->fn->queue[part->selector.queue];
	struct vfn_part_vq_state state;

	if (!TAKE(part, value, state))
		return wrong_length(s, part, sizeof(state));
	/* Chains in between were fetched, and nobody knows which of them came back. */
	if (state.reserved != 0 || state.avail != state.used)
		return REFUSE(s, EINVAL, "queue %u: chains in flight at 0x%x 0x%x", q->index,
			state.avail, state.used);
	q->state = (struct vringh_state){.avail = state.avail, .used = state.used};
	q->log = state.log;
	s->seen_vq[q->index] |= SEEN_VQ_STATE;
	return 0;
}

/* The whole table, where the command has one of its entries. */
static int
set_vlans(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	if (part->selector.cvq.command != VIRTIO_NET_CTRL_VLAN_ADD ||
		!vfn_has(s->fn, VIRTIO_NET_F_CTRL_VLAN))
		return REFUSE(s, EINVAL, "VLANs are not filtered");
	if (!TAKE(part, value, s->fn->filter.vlan))
		return wrong_length(s, part, sizeof(s->fn->filter.vlan));
	return 0;
}

static int
set_part(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	size_t used = 0; /* bytes of the selector */
	bool queue = false;

	if (part->reserved != 0 || (part->flags & ~VFN_PART_OPTIONAL))
		return REFUSE(s, EINVAL, "part 0x%x has flags that are not known", part->type);
	switch (part->type) {
	case VFN_PART_DEV_FEATURES:
	case VFN_PART_DRV_FEATURES:
	case VFN_PART_STATUS:
		break;
	case VFN_PART_COMMON_CFG:
		used = sizeof(part->selector.offset);
		break;
	case VFN_PART_NET_CVQ:
		used = sizeof(part->selector.cvq);
		break;
	case VFN_PART_VQ_CFG:
	case VFN_PART_VQ_NOTIFY:
	case VFN_PART_VQ_STATE:
		used = sizeof(part->selector.queue);
		queue = true;
		break;
	default:
		return part->flags & VFN_PART_OPTIONAL ?
			0 :
			REFUSE(s, ENOTSUP, "part 0x%x is not known", part->type);
	}
	if (!all_zero(part->selector.raw + used, sizeof(part->selector.raw) - used))
		return REFUSE(s, EINVAL, "part 0x%x has a selector that cannot be", part->type);
	if (queue && part->selector.queue >= s->fn->nb_queues)
		return REFUSE(s, EINVAL, "there is no queue %u", part->selector.queue);
	if (part->type > VFN_PART_DRV_FEATURES && !(s->seen & SEEN_FEATURES))
		return REFUSE(
			s, EINVAL, "part 0x%x comes before the driver's features", part->type);

	switch (part->type) {
	case VFN_PART_COMMON_CFG:
		return set_common(s, part, value);
	case VFN_PART_STATUS:
		s->seen |= SEEN_STATUS;
		return TAKE(part, value, s->fn->status) ?
			0 :
			wrong_length(s, part, sizeof(s->fn->status));
	case VFN_PART_VQ_CFG:
		return set_vq_cfg(s, part, value);
	case VFN_PART_VQ_NOTIFY:
		return set_vq_notify(s, part, value);
	case VFN_PART_VQ_STATE:
		return set_vq_state(s, part, value);
	case VFN_PART_NET_CVQ:
		if (part->selector.cvq.class == VIRTIO_NET_CTRL_VLAN)
			return set_vlans(s, part, value);
		if (vfn_ctrl_command(s->fn, part->selector.cvq.class, part->selector.cvq.command,
			    value, part->length) == VIRTIO_NET_OK)
			return 0;
		return REFUSE(s, EINVAL, "control queue command %u/%u is refused",
			part->selector.cvq.class, part->selector.cvq.command);
	}
	return set_features(s, part, value);
}

/* Each part is there but once. */
static bool
is_second(const uint8_t *parts, const uint8_t *until, const struct vfn_part *part)
{
	size_t left = until - parts;
	struct vfn_part other;

	while (vfn_state_next(&parts, &left, &other) != NULL)
		if (other.type == part->type &&
			memcmp(&other.selector, &part->selector, sizeof(part->selector)) == 0)
			return true;
	return false;
}

static int
set_parts(struct setting *s, const uint8_t *parts, size_t left)
{
	const uint8_t *at = parts, *value;
	struct vfn_part part;
	int ret;

	while (left > 0) {
		const uint8_t *begin = at;

		value = vfn_state_next(&at, &left, &part);
		if (value == NULL)
			return REFUSE(s, EINVAL, "it ends within a part");
		if (is_second(parts, begin, &part))
			return REFUSE(s, EINVAL, "part 0x%x is there twice", part.type);
		ret = set_part(s, &part, value);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* What vringh_init() refuses; without the memory, as far as that goes. */
static int
check_queue(const struct setting *s, struct vfn_queue *q)
{
	struct vringh_config cfg = vfn_queue_config(q);
	enum vringh_error error = VRINGH_OK;
	struct vringh vr;

	if (s->seen_vq[q->index] == SEEN_VQ_CFG && q->enabled)
		return REFUSE(s, EINVAL, "queue %u: no position", q->index);
	if (!q->enabled)
		return 0;
	if (!(s->fn->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return REFUSE(s, EINVAL, "queue %u is enabled without FEATURES_OK", q->index);
	if (!s->check)
		error = vringh_init(&vr, &cfg);
	else if (q->size == 0 || q->size > VRINGH_MAX_SIZE ||
		(!cfg.packed && (q->size & (q->size - 1)) != 0))
		error = VRINGH_E_SIZE;
	else if (cfg.packed && (q->state.avail & 0x7fff) >= q->size)
		error = VRINGH_E_STATE;
	if (error == VRINGH_OK)
		return 0;
	return REFUSE(s, EINVAL, "queue %u: %s (size %u, position 0x%x)", q->index,
		vringh_strerror(error), q->size, q->state.avail);
}

static int
check_all(const struct setting *s)
{
	const uint8_t status = s->fn->status;
	unsigned int i;
	int ret = 0;

	if (s->seen != (SEEN_FEATURES | SEEN_STATUS))
		return REFUSE(s, EINVAL, "without the driver's features or the status");
	if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return REFUSE(s, EINVAL, "status 0x%x cannot be", status);
	if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && !vfn_regs_features_ok(s->fn))
		return REFUSE(s, ENOTSUP, "features 0x%" PRIx64, s->fn->driver_features);
	for (i = 0; i < s->fn->nb_queues && ret == 0; i++)
		ret = check_queue(s, &s->fn->queue[i]);
	return ret;
}

/* The copy becomes the function, which has no DRIVER_OK: no queue is active before or after. */
static void
commit(struct vfn_function *fn, const struct vfn_function *copy)
{
	struct vfn_queue *queue = fn->queue;
	unsigned int i;

	*fn = *copy;
	fn->queue = queue;
	fn->status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	for (i = 0; i < fn->nb_queues; i++) {
		const struct vfn_queue *from = &copy->queue[i];
		struct vfn_queue *q = &queue[i];

		vfn_queue_init(q);
		q->size = from->size;
		memcpy(q->area, from->area, sizeof(q->area));
		q->log = from->log;
		q->state = from->state;
		vfn_queue_set_vector(q, from->vector);
		if (from->enabled) {
			vfn_queue_enable(q);
			q->suspended = q->enabled;
		}
	}
}

static struct vfn_function *
copy_of(struct vfn_function *fn)
{
	struct vfn_function *copy = malloc(sizeof(*copy));
	unsigned int i;

	if (copy == NULL)
		return NULL;
	vfn_port_stop(fn);
	*copy = *fn;
	vfn_port_start(fn);
	copy->queue =
		aligned_alloc(_Alignof(struct vfn_queue), fn->nb_queues * sizeof(*copy->queue));
	if (copy->queue == NULL) {
		free(copy);
		return NULL;
	}
	memcpy(copy->queue, fn->queue, fn->nb_queues * sizeof(*copy->queue));
	for (i = 0; i < fn->nb_queues; i++)
		copy->queue[i].fn = copy;
	return copy;
}

static int
state_set(struct vfn_function *fn, bool check)
{
	struct setting s = {.real = fn, .check = check};
	struct vfn_state_header header;
	const uint8_t *parts = fn->state + sizeof(header);
	int ret;

	if (!check && ((fn->status & VIRTIO_CONFIG_S_DRIVER_OK) || fn->log_on))
		return REFUSE(&s, EBUSY, "the function runs");
	if (fn->state_len < sizeof(header))
		return REFUSE(&s, EINVAL, "%u bytes are none", fn->state_len);
	memcpy(&header, fn->state, sizeof(header));
	if (header.magic != VFN_STATE_MAGIC || header.reserved != 0)
		return REFUSE(&s, EINVAL, "it is something else");
	if (header.version != VFN_STATE_VERSION)
		return REFUSE(&s, EPROTONOSUPPORT, "version %u is not known", header.version);
	if (header.length != fn->state_len - sizeof(header))
		return REFUSE(&s, EINVAL, "%u bytes of parts are said to be %u",
			(unsigned int)(fn->state_len - sizeof(header)), header.length);
	if (header.checksum != vfn_state_checksum(parts, header.length))
		return REFUSE(&s, EBADMSG, "the checksum is wrong");

	s.fn = copy_of(fn);
	if (s.fn == NULL)
		return -ENOMEM;
	vfn_regs_clear(s.fn);
	ret = set_parts(&s, parts, header.length);
	if (ret == 0)
		ret = check_all(&s);
	if (ret == 0 && !check)
		commit(fn, s.fn);
	free(s.fn->queue);
	free(s.fn);
	return ret;
}

void
vfn_state_control(struct vfn_function *fn, uint32_t command)
{
	int ret = -EINVAL;

	if (command == VFN_STATE_GET)
		ret = state_get(fn);
	else if (command == VFN_STATE_SET || command == VFN_STATE_CHECK)
		ret = state_set(fn, command == VFN_STATE_CHECK);
	fn->state_result = -ret;
	FN_LOG(DEBUG, fn, "state command %u: %s", command, ret == 0 ? "done" : strerror(-ret));
}
