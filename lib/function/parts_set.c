/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Device parts checked and set. They come from files and from other processes and are not trusted:
 * they are carried out on a copy of the registers, which become the function's only if nothing was
 * wrong. Control.
 */

#include <stdlib.h>

#include "function.h"
#include "parts.h"

/* Which parts there were; of a queue, or but once. */
enum seen {
	SEEN_FEATURES = 1 << 0,
	SEEN_STATUS = 1 << 1,
	SEEN_VQ_CFG = 1 << 0,
	SEEN_VQ_POSITION = 1 << 1,
};

struct setting {
	struct vfn_function *fn;
	struct vfn_regs *regs; /* what they are going to be */
	bool check;	       /* the rings need not be mapped */
	unsigned int seen;
	unsigned int seen_vq[VFN_MAX_QUEUES];
};

#define REFUSE(s, error, fmt, ...) \
	(FN_LOG(ERR, (s)->fn, "parts refused: " fmt, ##__VA_ARGS__), -(error))

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
			FN_LOG(DEBUG, s->fn,
				"parts of a function that offers 0x%" PRIx64 ", not 0x%" PRIx64,
				features, s->fn->device_features);
			return 0;
		}
		return REFUSE(
			s, ENOTSUP, "they are of a function that offers 0x%" PRIx64, features);
	}
	if (features & ~s->fn->device_features)
		return REFUSE(s, ENOTSUP, "features 0x%" PRIx64 " are not offered",
			features & ~s->fn->device_features);
	s->regs->driver_features = features;
	s->seen |= SEEN_FEATURES;
	return 0;
}

static int
set_common(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	const struct vfn_common_field *f = vfn_common_fields, *end = f + vfn_nb_common_fields;
	uint16_t nb_queues;

	if (part->selector.offset == offsetof(struct vfn_common_cfg, num_queues)) {
		if (!TAKE(part, value, nb_queues))
			return wrong_length(s, part, sizeof(nb_queues));
		return nb_queues == s->fn->nb_queues ?
			0 :
			REFUSE(s, EINVAL, "they are of a function with another number of queues");
	}
	while (f < end && f->offset != part->selector.offset)
		f++;
	if (f == end)
		return part->flags & VFN_PART_OPTIONAL ?
			0 :
			REFUSE(s, ENOTSUP, "common configuration at %u is not known",
				part->selector.offset);
	if (part->length != f->len)
		return wrong_length(s, part, f->len);
	memcpy((uint8_t *)s->regs + f->at, value, f->len);
	if (s->regs->config_vector >= vfn_nb_vectors(s->fn) && s->regs->config_vector != NO_VECTOR)
		return REFUSE(s, EINVAL, "there is no vector %u", s->regs->config_vector);
	return 0;
}

static int
set_vq_cfg(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	unsigned int index = part->selector.queue;
	struct vfn_queue_regs *q = &s->regs->queue[index];
	struct vfn_part_vq_cfg cfg;

	if (!TAKE(part, value, cfg))
		return wrong_length(s, part, sizeof(cfg));
	if (cfg.reserved != 0 || cfg.enabled > 1 ||
		(cfg.vector >= vfn_nb_vectors(s->fn) && cfg.vector != NO_VECTOR))
		return REFUSE(s, EINVAL, "queue %u: configuration that cannot be", index);
	q->size = cfg.size;
	q->vector = cfg.vector;
	q->enabled = cfg.enabled;
	q->area[0] = cfg.desc;
	q->area[1] = cfg.driver;
	q->area[2] = cfg.device;
	s->seen_vq[index] |= SEEN_VQ_CFG;
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
set_vq_position(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	unsigned int index = part->selector.queue;
	struct vfn_queue_regs *q = &s->regs->queue[index];
	struct vfn_part_vq_position at;

	if (!TAKE(part, value, at))
		return wrong_length(s, part, sizeof(at));
	/* Chains in between were fetched, and nobody knows which of them came back. */
	if (at.reserved != 0 || at.avail != at.used)
		return REFUSE(s, EINVAL, "queue %u: chains in flight at 0x%x 0x%x", index, at.avail,
			at.used);
	q->position = (struct vringh_state){.avail = at.avail, .used = at.used};
	q->dirty = at.dirty;
	s->seen_vq[index] |= SEEN_VQ_POSITION;
	return 0;
}

/* What the core does not know the class may. */
static int
set_class(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	const char *why = NULL;
	int ret = s->fn->class->parts_set(s->fn, s->regs, part, value, &why);

	if (ret == 0 || (ret == -ENOTSUP && (part->flags & VFN_PART_OPTIONAL)))
		return 0;
	if (ret == -ENOTSUP)
		return REFUSE(s, ENOTSUP, "part 0x%x is not known", part->type);
	return REFUSE(s, EINVAL, "part 0x%x of %u bytes: %s", part->type, part->length, why);
}

static int
set_part(struct setting *s, const struct vfn_part *part, const uint8_t *value)
{
	size_t used; /* bytes of the selector */
	bool queue = false;

	if (part->reserved != 0 || (part->flags & ~VFN_PART_OPTIONAL))
		return REFUSE(s, EINVAL, "part 0x%x has flags that are not known", part->type);
	switch (part->type) {
	case VFN_PART_DEV_FEATURES:
	case VFN_PART_DRV_FEATURES:
	case VFN_PART_STATUS:
		used = 0;
		break;
	case VFN_PART_COMMON_CFG:
		used = sizeof(part->selector.offset);
		break;
	case VFN_PART_VQ_CFG:
	case VFN_PART_VQ_NOTIFY:
	case VFN_PART_VQ_POSITION:
		used = sizeof(part->selector.queue);
		queue = true;
		break;
	default:
		used = sizeof(part->selector.raw);
	}
	if (!all_zero(part->selector.raw + used, sizeof(part->selector.raw) - used))
		return REFUSE(s, EINVAL, "part 0x%x has a selector that cannot be", part->type);
	if (queue && part->selector.queue >= s->fn->nb_queues)
		return REFUSE(s, EINVAL, "there is no queue %u", part->selector.queue);
	if (part->type > VFN_PART_DRV_FEATURES && !(s->seen & SEEN_FEATURES))
		return REFUSE(
			s, EINVAL, "part 0x%x comes before the driver's features", part->type);

	switch (part->type) {
	case VFN_PART_DEV_FEATURES:
	case VFN_PART_DRV_FEATURES:
		return set_features(s, part, value);
	case VFN_PART_COMMON_CFG:
		return set_common(s, part, value);
	case VFN_PART_STATUS:
		s->seen |= SEEN_STATUS;
		return TAKE(part, value, s->regs->status) ?
			0 :
			wrong_length(s, part, sizeof(s->regs->status));
	case VFN_PART_VQ_CFG:
		return set_vq_cfg(s, part, value);
	case VFN_PART_VQ_NOTIFY:
		return set_vq_notify(s, part, value);
	case VFN_PART_VQ_POSITION:
		return set_vq_position(s, part, value);
	}
	return set_class(s, part, value);
}

/* Each part is there but once. */
static bool
is_second(const uint8_t *parts, const uint8_t *until, const struct vfn_part *part)
{
	size_t left = until - parts;
	struct vfn_part other;

	while (vfn_parts_next(&parts, &left, &other) != NULL)
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

		value = vfn_parts_next(&at, &left, &part);
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
check_queue(const struct setting *s, unsigned int index)
{
	const struct vfn_queue_regs *q = &s->regs->queue[index];
	struct vringh_config cfg = vfn_queue_config(s->fn, s->regs, index);
	int error = 0;
	struct vringh vr;

	if (s->seen_vq[index] == SEEN_VQ_CFG && q->enabled)
		return REFUSE(s, EINVAL, "queue %u: no position", index);
	if (!q->enabled)
		return 0;
	if (!(s->regs->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return REFUSE(s, EINVAL, "queue %u is enabled without FEATURES_OK", index);
	if (!s->check)
		error = vringh_init(&vr, &cfg);
	else if (q->size == 0 || q->size > VRINGH_MAX_SIZE ||
		(!cfg.packed && (q->size & (q->size - 1)) != 0))
		error = -VRINGH_E_SIZE;
	else if (cfg.packed && (q->position.avail & 0x7fff) >= q->size)
		error = -VRINGH_E_STATE;
	/* What is not mapped yet behind an IOMMU stands still, as it does when it is enabled. */
	if (error == 0 || error == -VRINGH_E_MISS)
		return 0;
	return REFUSE(s, EINVAL, "queue %u: %s (size %u, position 0x%x)", index,
		vringh_strerror(error), q->size, q->position.avail);
}

static int
check_all(const struct setting *s)
{
	const uint8_t status = s->regs->status;
	unsigned int i;
	int ret = 0;

	if (s->seen != (SEEN_FEATURES | SEEN_STATUS))
		return REFUSE(s, EINVAL, "without the driver's features or the status");
	if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return REFUSE(s, EINVAL, "status 0x%x cannot be", status);
	if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && !vfn_regs_features_ok(s->fn, s->regs))
		return REFUSE(s, ENOTSUP, "features 0x%" PRIx64, s->regs->driver_features);
	for (i = 0; i < s->fn->nb_queues && ret == 0; i++)
		ret = check_queue(s, i);
	return ret;
}

/* These become the registers of a function without DRIVER_OK: no queue is active before or after.
 */
static void
commit(struct vfn_function *fn, const struct vfn_regs *regs)
{
	unsigned int i;

	vfn_quiesce(fn);
	fn->regs = *regs;
	fn->regs.status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	for (i = 0; i < fn->nb_queues; i++)
		fn->regs.queue[i].enabled = false;
	/* An interrupt that was on its way where these are from has not come along. */
	__atomic_store_n(&fn->isr, VFN_ISR_QUEUE, __ATOMIC_RELAXED);
	for (i = 0; i < fn->nb_queues; i++)
		if (regs->queue[i].enabled && regs->queue[i].vector != NO_VECTOR)
			__atomic_store_n(
				&fn->irq[regs->queue[i].vector].pending, true, __ATOMIC_RELAXED);
	vfn_irqs_update(fn);
	vfn_resume(fn);
	for (i = 0; i < fn->nb_queues; i++) {
		if (!regs->queue[i].enabled)
			continue;
		vfn_queue_enable(&fn->queue[i]);
		fn->regs.queue[i].suspended = fn->regs.queue[i].enabled;
	}
}

int
vfn_parts_set(struct vfn_function *fn, bool check)
{
	struct setting s = {.fn = fn, .check = check};
	struct vfn_parts_header header;
	const uint8_t *parts = fn->parts + sizeof(header);
	int ret;

	if (!check && ((fn->regs.status & VIRTIO_CONFIG_S_DRIVER_OK) || fn->regs.dirty_on))
		return REFUSE(&s, EBUSY, "the function runs");
	if (fn->parts_len < sizeof(header))
		return REFUSE(&s, EINVAL, "%u bytes are none", fn->parts_len);
	memcpy(&header, fn->parts, sizeof(header));
	if (header.magic != VFN_PARTS_MAGIC || header.reserved != 0)
		return REFUSE(&s, EINVAL, "it is something else");
	if (header.version != VFN_PARTS_VERSION)
		return REFUSE(&s, EPROTONOSUPPORT, "version %u is not known", header.version);
	if (header.length != fn->parts_len - sizeof(header))
		return REFUSE(&s, EINVAL, "%u bytes of parts are said to be %u",
			(unsigned int)(fn->parts_len - sizeof(header)), header.length);
	if (header.checksum != vfn_parts_checksum(parts, header.length))
		return REFUSE(&s, EBADMSG, "the checksum is wrong");

	s.regs = malloc(sizeof(*s.regs));
	if (s.regs == NULL)
		return -ENOMEM;
	*s.regs = fn->regs;
	vfn_regs_clear(fn, s.regs);
	ret = set_parts(&s, parts, header.length);
	if (ret == 0)
		ret = check_all(&s);
	if (ret == 0 && !check)
		commit(fn, s.regs);
	free(s.regs);
	return ret;
}
