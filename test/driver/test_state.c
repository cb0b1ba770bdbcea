/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The state of a function as bytes: what is got can be set on another one, which goes on in the
 * middle of the rings; what is wrong is refused and changes nothing.
 */

#include <linux/virtio_ring.h>

#include <vfn_state.h>

#include "fn_harness.h"

#define HEADER	 sizeof(struct vfn_state_header)
#define MQ	 (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_RX))
#define UNMAPPED FREE_AT

static struct frame f, got;

struct blob {
	uint8_t data[VFN_STATE_SIZE];
	uint32_t len;
};

/* ---- the window ---- */

static struct place
window(struct guest *g)
{
	return (struct place){g->vendor.bar, VGET(g, state_offset), VGET(g, state_size)};
}

static int
command(struct guest *g, enum vfn_state_command what)
{
	VSET(g, state_control, what);
	return VGET(g, state_control);
}

static void
get(struct guest *g, struct blob *b)
{
	struct place w = window(g);

	assert_int_equal(command(g, VFN_STATE_GET), 0);
	b->len = VGET(g, state_len);
	assert_in_range(b->len, HEADER, w.length);
	assert_int_equal(g->link->ops->read(g->link, w.bar, w.offset, b->data, b->len), 0);
}

static int
put(struct guest *g, const struct blob *b, enum vfn_state_command what)
{
	struct place w = window(g);

	assert_int_equal(g->link->ops->write(g->link, w.bar, w.offset, b->data, b->len), 0);
	VSET(g, state_len, b->len);
	return command(g, what);
}

static bool
same(const struct blob *a, const struct blob *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* The right header for whatever the parts are. */
static void
seal(struct blob *b)
{
	struct vfn_state_header h = {.magic = VFN_STATE_MAGIC,
		.version = VFN_STATE_VERSION,
		.length = b->len - HEADER,
		.checksum = vfn_state_checksum(b->data + HEADER, b->len - HEADER)};

	memcpy(b->data, &h, sizeof(h));
}

/* Header of the part with a type and a selector's first 16 bits; the value follows. */
static uint8_t *
find(struct blob *b, uint16_t type, uint16_t selector)
{
	const uint8_t *at = b->data + HEADER;
	size_t left = b->len - HEADER;
	struct vfn_part part;

	for (;;) {
		uint8_t *begin = b->data + (at - b->data);

		if (vfn_state_next(&at, &left, &part) == NULL) {
			fail_msg("no part 0x%x/%u", type, selector);
			return NULL;
		}
		if (part.type == type && part.selector.queue == selector)
			return begin;
	}
}

static void
append(struct blob *b, const struct vfn_part *part, const void *value)
{
	assert_true(b->len + sizeof(*part) + part->length <= sizeof(b->data));
	memcpy(b->data + b->len, part, sizeof(*part));
	memcpy(b->data + b->len + sizeof(*part), value, part->length);
	b->len += sizeof(*part) + part->length;
}

static void
cut(struct blob *b, uint8_t *at, size_t len)
{
	memmove(at, at + len, b->data + b->len - (at + len));
	b->len -= len;
}

#define EDIT(b, type, selector, kind, field, value) \
	do { \
		uint8_t *part_ = find(b, type, selector) + sizeof(struct vfn_part); \
		kind v_; \
		memcpy(&v_, part_, sizeof(v_)); \
		v_.field = (value); \
		memcpy(part_, &v_, sizeof(v_)); \
	} while (0)
#define EDIT_CFG(b, queue, field, value) \
	EDIT(b, VFN_PART_VQ_CFG, queue, struct vfn_part_vq_cfg, field, value)
#define EDIT_STATE(b, queue, field, value) \
	EDIT(b, VFN_PART_VQ_STATE, queue, struct vfn_part_vq_state, field, value)

/* ---- a guest whose function is exchanged ---- */

static void
send_quietly(struct guest *g, unsigned int queue, uint32_t first, unsigned int n)
{
	for (; n > 0; n--, first++) {
		frame_make(&f, first, 60 + first % 900);
		assert_true(tx_post(g, queue, &f, NULL, 0) >= 0);
	}
	mock_publish(&g->q[queue].drv);
	queue_kick(g, queue);
}

static void
receive(struct guest *g, unsigned int queue, uint32_t first, unsigned int n)
{
	for (; n > 0; n--, first++) {
		frame_make(&f, first, 60 + first % 900);
		rx_wait(g, queue, &got);
		frames_equal(&got, &f);
	}
}

/* A fresh function under the guest's memory; its rings stay as they are. */
static void
exchange(struct guest *g)
{
	static unsigned int number;
	struct vfn_function_params params = {
		.max_pairs = g->conf.pairs, .mac = {0x02, 'v', 'f', 'n', 't', 's'}};
	struct vfn_dma_map map = {.iova = HEAP_AT,
		.len = g->heap_end - HEAP_AT,
		.fd = -1,
		.readable = true,
		.writable = true};
	unsigned int i;

	g->link->ops->close(g->link);
	snprintf(params.name, sizeof(params.name), "next%u", number++);
	assert_int_equal(vfn_link_local_open(&params, &g->link), 0);
	map.host = mock_mem_at(&g->mem, map.iova, map.len);
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
	for (i = 0; i < g->nb_queues; i++) {
		g->link->ops->set_irq(g->link, i + 1, g->q[i].call);
		g->link->ops->set_doorbell(g->link, i, g->q[i].kick);
	}
}

static void
go_on(struct guest *g)
{
	guest_driver_ok(g);
	VSET(g, suspend, 0);
}

static void
other_function_goes_on_in_the_middle(const struct shape *shape)
{
	static struct blob b;
	struct guest *g =
		guest_open(&(struct guest_conf){.features = shape_features(shape), .size = 32});
	unsigned int round;

	/* several laps of the rings */
	for (round = 0; round < 12; round++) {
		uint32_t first = 20 * round;

		rx_post(g, 0, 14, 2048, 1);
		send_quietly(g, 1, first, 7);
		VSET(g, suspend, 1);
		/* not seen by the one, to be found by the other */
		send_quietly(g, 1, first + 7, 7);
		get(g, &b);
		exchange(g);
		assert_int_equal(put(g, &b, VFN_STATE_SET), 0);
		go_on(g);
		receive(g, 0, first, 14);
		tx_wait(g, 1, 14);
	}
}

static void
what_was_set_is_got_again(const struct shape *shape)
{
	static struct blob before, after;
	struct guest *g = guest_open(&(struct guest_conf){
		.features = shape_features(shape) | MQ, .pairs = 3, .used_pairs = 2});
	uint8_t *status;

	assert_int_equal(VSET(g, curr_pairs, 2), 0);
	CSET(g, config_msix_vector, 0);
	rx_post(g, 0, 50, 2048, 1);
	send_quietly(g, 1, 0, 40);
	receive(g, 0, 0, 40);
	VSET(g, suspend, 1);
	get(g, &before);
	exchange(g);
	assert_int_equal(put(g, &before, VFN_STATE_SET), 0);
	assert_int_equal(CGET(g, device_status), STATUS_FEATURES);
	get(g, &after);
	/* it is the driver that says when the function goes */
	status = find(&after, VFN_PART_STATUS, 0) + sizeof(struct vfn_part);
	*status |= VIRTIO_CONFIG_S_DRIVER_OK;
	seal(&after);
	assert_true(same(&before, &after));
	assert_int_equal(VGET(g, curr_pairs), 2);
}

static void
running_function_tells_exact_positions(const struct shape *shape)
{
	static struct blob b;
	struct guest *g =
		guest_open(&(struct guest_conf){.features = shape_features(shape), .size = 256});
	unsigned int round, q;

	for (round = 0; round < 20; round++) {
		rx_post(g, 0, 100, 2048, 1);
		send_quietly(g, 1, 100 * round, 100);
		get(g, &b);
		for (q = 0; q < 2; q++) {
			struct vfn_part_vq_state s;

			memcpy(&s, find(&b, VFN_PART_VQ_STATE, q) + sizeof(struct vfn_part),
				sizeof(s));
			assert_int_equal(s.avail, s.used);
		}
		receive(g, 0, 100 * round, 100);
		tx_wait(g, 1, 100);
	}
}

/* Frames that arrive as they were sent, and nothing else; false for anything wrong. */
static bool
frames_pass(struct guest *g, uint32_t first, unsigned int n, unsigned int ms)
{
	struct mock_driver *d = &g->q[0].drv;
	uint64_t end = now_ms() + ms;
	struct mock_used used;

	send_quietly(g, 1, first, n);
	while (n > 0 && now_ms() < end) {
		int ret = mock_collect(d, &used, 1);

		if (ret < 0)
			return false;
		if (ret == 0)
			continue;
		frame_make(&f, first, 60 + first % 900);
		assert_true(mock_mem_read(
			&g->mem, mock_buf_addr(d, used.id, HDR_LEN), got.data, f.len));
		if (used.len != HDR_LEN + f.len || memcmp(got.data, f.data, f.len) != 0)
			return false;
		first++;
		n--;
	}
	return n == 0 && used_try(g, 1, &used, ms);
}

/* The control of the tests above: they notice a position that is wrong by one. */
static void
position_off_by_one_is_noticed(const struct shape *shape)
{
	static struct blob b;
	static const int off[] = {0, 1, -1};
	unsigned int i, queue;

	for (i = 0; i < DIM(off); i++) {
		for (queue = 0; queue < 2; queue++) {
			struct guest *g = guest_open(&(struct guest_conf){
				.features = shape_features(shape), .size = 32});
			struct vringh_state s;

			rx_post(g, 0, 20, 2048, 1);
			send_quietly(g, 1, 0, 10);
			receive(g, 0, 0, 10);
			tx_wait(g, 1, 10);
			VSET(g, suspend, 1);
			get(g, &b);
			s = queue_state(g, queue);
			EDIT_STATE(&b, queue, avail, s.avail + off[i]);
			EDIT_STATE(&b, queue, used, s.used + off[i]);
			seal(&b);
			exchange(g);
			assert_int_equal(put(g, &b, VFN_STATE_SET), 0);
			go_on(g);
			assert_int_equal(
				frames_pass(g, 10, 5, off[i] == 0 ? PATIENCE_MS : 50), off[i] == 0);
			guest_close(g);
		}
	}
}

/* ---- what is refused ---- */

/* A function in the middle of its negotiation, and the state of one that has run. */
static struct guest *
with_state(uint64_t features, struct blob *b)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = features | MQ, .pairs = 2});

	assert_int_equal(VSET(g, curr_pairs, 2), 0);
	rx_post(g, 0, 50, 2048, 1);
	send_quietly(g, 1, 0, 40);
	receive(g, 0, 0, 40);
	VSET(g, suspend, 1);
	get(g, b);
	CSET(g, device_status, 0);
	assert_int_equal(guest_negotiate(g, features | BIT(VIRTIO_F_VERSION_1)), 0);
	CSET(g, queue_select, 2);
	CSET(g, queue_size, 64);
	VSET(g, queue_avail, 5);
	return g;
}

static void
state_is_refused_without_effect(struct guest *g, const struct blob *b, int error, const char *what)
{
	static struct blob before, after;
	int ret;

	get(g, &before);
	ret = put(g, b, VFN_STATE_SET);
	if (error >= 0 ? ret != error : ret == 0)
		fail_msg("%s: result %d, not %d", what, ret, error);
	get(g, &after);
	if (!same(&before, &after))
		fail_msg("%s: refused, but not without effect", what);
}

static void
cut_states_are_refused_without_effect(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	const uint8_t *at = full.data + HEADER;
	size_t left = full.len - HEADER;
	struct vfn_part part = {0};
	uint32_t len, ends = 0;

	(void)state;
	for (len = 0; len < full.len; len++) {
		b = full;
		b.len = len;
		state_is_refused_without_effect(g, &b, EINVAL, "cut");
		if (len <= HEADER)
			continue;
		/* between two parts it may be a state of fewer queues */
		if (at == full.data + len) {
			vfn_state_next(&at, &left, &part);
			ends++;
			continue;
		}
		if (at < full.data + len)
			vfn_state_next(&at, &left, &part);
		seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "cut and sealed");
	}
	assert_in_range(ends, 15, 40);
	assert_int_equal(put(g, &full, VFN_STATE_SET), 0);
}

static void
any_changed_byte_is_noticed(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	uint32_t i;

	(void)state;
	for (i = 0; i < full.len; i++) {
		b = full;
		b.data[i] ^= 1 << i % 8;
		state_is_refused_without_effect(g, &b, -1, "changed byte");
	}
}

/* Whatever becomes of it: a failed set has no effect, and the function still works afterwards. */
static void
changed_and_sealed_states_do_no_harm(const struct shape *shape)
{
	static struct blob full, b, before, after;
	struct guest *g = with_state(shape_features(shape), &full);
	unsigned int refused = 0, taken = 0;
	uint32_t i, bit;

	get(g, &before);
	for (i = HEADER; i < full.len; i++) {
		for (bit = 0; bit < 8; bit += 7) {
			b = full;
			b.data[i] ^= 1 << bit;
			seal(&b);
			if (put(g, &b, VFN_STATE_SET) == 0) {
				taken++;
				CSET(g, device_status, 0);
				get(g, &before);
				continue;
			}
			refused++;
			get(g, &after);
			if (!same(&before, &after))
				fail_msg("byte %u: refused, but not without effect", i);
		}
	}
	assert_true(refused > 100 && taken > 10);
	assert_int_equal(put(g, &full, VFN_STATE_SET), 0);
	go_on(g);
	send_quietly(g, 1, 40, 10);
	receive(g, 0, 40, 10);
}

static void
header_is_checked(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);

	(void)state;
#define HEADER_CASE(field, value, error) \
	do { \
		struct vfn_state_header h_; \
		b = full; \
		memcpy(&h_, b.data, sizeof(h_)); \
		h_.field = (value); \
		memcpy(b.data, &h_, sizeof(h_)); \
		state_is_refused_without_effect(g, &b, error, #field); \
	} while (0)
	HEADER_CASE(magic, 0x12345678, EINVAL);
	HEADER_CASE(version, VFN_STATE_VERSION + 1, EPROTONOSUPPORT);
	HEADER_CASE(reserved, 1, EINVAL);
	HEADER_CASE(length, h_.length - 1, EINVAL);
	HEADER_CASE(length, h_.length + 1, EINVAL);
	HEADER_CASE(length, UINT32_MAX, EINVAL);
	HEADER_CASE(checksum, h_.checksum + 1, EBADMSG);
#undef HEADER_CASE
	assert_int_not_equal(VSET(g, state_len, VFN_STATE_SIZE + 1), 0);
	assert_int_equal(command(g, 0), EINVAL);
	assert_int_equal(command(g, 4), EINVAL);
}

static void
parts_of_a_wrong_length_are_refused(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	const uint8_t *at = full.data + HEADER, *value;
	size_t left = full.len - HEADER;
	struct vfn_part part;

	(void)state;
	for (;;) {
		const uint8_t *begin = at;
		uint8_t *in_b = b.data + (begin - full.data);
		uint32_t length;

		value = vfn_state_next(&at, &left, &part);
		if (value == NULL)
			break;
		length = part.length;
		b = full;
		part.length = length - 1;
		cut(&b, in_b + sizeof(part), 1);
		memcpy(in_b, &part, sizeof(part));
		seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "a byte less");
		b = full;
		part.length = length + 1;
		cut(&b, in_b, sizeof(part) + length);
		append(&b, &part, value);
		seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "a byte more, at the end");
		b = full;
		part.length = UINT32_MAX;
		memcpy(in_b, &part, sizeof(part));
		seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "longer than everything");
	}
}

static void
parts_that_are_there_twice_are_refused(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	const uint8_t *at = full.data + HEADER, *value;
	size_t left = full.len - HEADER;
	struct vfn_part part;

	(void)state;
	while ((value = vfn_state_next(&at, &left, &part)) != NULL) {
		b = full;
		append(&b, &part, value);
		seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "twice");
	}
}

static void
unknown_parts_are_refused_unless_optional(void **state)
{
	static const uint16_t unknown[] = {
		0, 0xff, 0x106, 0x1ff, 0x201, 0x5ff, 0x600, 0xf001, 0xffff};
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	unsigned int i;

	(void)state;
	for (i = 0; i < DIM(unknown); i++) {
		struct vfn_part part = {.type = unknown[i], .length = 7};

		b = full;
		append(&b, &part, "unknown");
		seal(&b);
		state_is_refused_without_effect(g, &b, ENOTSUP, "unknown");
		b = full;
		part.flags = VFN_PART_OPTIONAL;
		append(&b, &part, "unknown");
		seal(&b);
		assert_int_equal(put(g, &b, VFN_STATE_SET), 0);
		CSET(g, device_status, 0);
	}
	/* the same for fields of the common configuration */
	b = full;
	append(&b,
		&(struct vfn_part){
			.type = VFN_PART_COMMON_CFG, .selector.offset = 1000, .length = 2},
		"ab");
	seal(&b);
	state_is_refused_without_effect(g, &b, ENOTSUP, "unknown field");
	find(&b, VFN_PART_COMMON_CFG, 1000)[offsetof(struct vfn_part, flags)] = VFN_PART_OPTIONAL;
	seal(&b);
	assert_int_equal(put(g, &b, VFN_STATE_SET), 0);
}

static void
features_are_checked(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	const uint64_t bad[] = {BIT(63), BIT(VIRTIO_NET_F_RSS), BIT(VIRTIO_F_ACCESS_PLATFORM)};
	uint64_t v = 0, own;
	unsigned int i;
	uint8_t *part;

	(void)state;
	memcpy(&own, find(&full, VFN_PART_DRV_FEATURES, 0) + sizeof(struct vfn_part), sizeof(own));
	for (i = 0; i < DIM(bad); i++) {
		b = full;
		v = own | bad[i];
		memcpy(find(&b, VFN_PART_DRV_FEATURES, 0) + sizeof(struct vfn_part), &v, sizeof(v));
		seal(&b);
		state_is_refused_without_effect(g, &b, ENOTSUP, "not offered");
	}
	/* one that another one needs, and the one that all need */
	v = (own & ~BIT(VIRTIO_NET_F_CTRL_VQ)) | BIT(VIRTIO_NET_F_MQ);
	b = full;
	memcpy(find(&b, VFN_PART_DRV_FEATURES, 0) + sizeof(struct vfn_part), &v, sizeof(v));
	cut(&b, find(&b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_RX), sizeof(struct vfn_part) + 1);
	cut(&b, find(&b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_RX | 1 << 8),
		sizeof(struct vfn_part) + 1);
	seal(&b);
	state_is_refused_without_effect(g, &b, ENOTSUP, "needs another");
	v = own & ~BIT(VIRTIO_F_VERSION_1);
	b = full;
	memcpy(find(&b, VFN_PART_DRV_FEATURES, 0) + sizeof(struct vfn_part), &v, sizeof(v));
	seal(&b);
	state_is_refused_without_effect(g, &b, ENOTSUP, "VERSION_1");
	/* what was offered has to be the same only if the part says so */
	b = full;
	part = find(&b, VFN_PART_DEV_FEATURES, 0);
	assert_int_equal(part[offsetof(struct vfn_part, flags)], VFN_PART_OPTIONAL);
	part[sizeof(struct vfn_part)] ^= 1;
	part[offsetof(struct vfn_part, flags)] = 0;
	seal(&b);
	state_is_refused_without_effect(g, &b, ENOTSUP, "other function");
	part[offsetof(struct vfn_part, flags)] = VFN_PART_OPTIONAL;
	seal(&b);
	assert_int_equal(put(g, &b, VFN_STATE_SET), 0);
}

/* Edits of the right state, each of which makes it wrong. */
enum wrong {
	STATUS_WITHOUT_FEATURES_OK,
	NO_STATUS,
	NO_FEATURES,
	OTHER_NUMBER_OF_QUEUES,
	NO_SUCH_CONFIG_VECTOR,
	NO_SUCH_QUEUE,
	NO_SUCH_VECTOR,
	RESERVED_FLAG,
	RESERVED_BYTE,
	RESERVED_SELECTOR,
	RESERVED_IN_CFG,
	RESERVED_IN_STATE,
	ENABLED_IS_2,
	SIZE_0,
	SIZE_TOO_LARGE,
	NO_POSITION,
	IN_FLIGHT,
	OTHER_DOORBELL,
	NO_PAIRS,
	TOO_MANY_PAIRS,
	RX_MODE_IS_2,
	NO_SUCH_COMMAND,
	FEATURES_COME_LATE,
	/* needs memory */
	MISALIGNED,
	NOT_MAPPED,
	OVERLAPPING,
	/* one format only */
	SPLIT_SIZE,
	PACKED_SLOT,
	NB_WRONG,
};

static void
spoil(struct blob *b, enum wrong how)
{
	uint8_t *part = NULL;
	uint16_t v;

	switch (how) {
	case STATUS_WITHOUT_FEATURES_OK:
		part = find(b, VFN_PART_STATUS, 0);
		part[sizeof(struct vfn_part)] &= ~VIRTIO_CONFIG_S_FEATURES_OK;
		break;
	case NO_STATUS:
		cut(b, find(b, VFN_PART_STATUS, 0), sizeof(struct vfn_part) + 1);
		break;
	case NO_FEATURES:
		cut(b, find(b, VFN_PART_DRV_FEATURES, 0), sizeof(struct vfn_part) + 8);
		break;
	case OTHER_NUMBER_OF_QUEUES:
	case NO_SUCH_CONFIG_VECTOR:
		v = how == OTHER_NUMBER_OF_QUEUES ? 7 : 6;
		part = find(b, VFN_PART_COMMON_CFG,
			how == OTHER_NUMBER_OF_QUEUES ?
				offsetof(struct vfn_common_cfg, num_queues) :
				offsetof(struct vfn_common_cfg, config_msix_vector));
		memcpy(part + sizeof(struct vfn_part), &v, sizeof(v));
		break;
	case NO_SUCH_QUEUE:
		find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, selector)] = 5;
		break;
	case NO_SUCH_VECTOR:
		EDIT_CFG(b, 1, vector, 6);
		break;
	case RESERVED_FLAG:
		find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, flags)] = 2;
		break;
	case RESERVED_BYTE:
		find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, reserved)] = 1;
		break;
	case RESERVED_SELECTOR:
		find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, selector) + 7] = 1;
		break;
	case RESERVED_IN_CFG:
		EDIT_CFG(b, 1, reserved, 1);
		break;
	case RESERVED_IN_STATE:
		EDIT_STATE(b, 1, reserved, 1);
		break;
	case ENABLED_IS_2:
		EDIT_CFG(b, 1, enabled, 2);
		break;
	case SIZE_0:
		EDIT_CFG(b, 1, size, 0);
		break;
	case SIZE_TOO_LARGE:
		EDIT_CFG(b, 1, size, 32769);
		break;
	case NO_POSITION:
		cut(b, find(b, VFN_PART_VQ_STATE, 1),
			sizeof(struct vfn_part) + sizeof(struct vfn_part_vq_state));
		break;
	case IN_FLIGHT:
		EDIT_STATE(b, 1, avail, v_.used + 1);
		break;
	case OTHER_DOORBELL:
		EDIT(b, VFN_PART_VQ_NOTIFY, 1, struct vfn_part_vq_notify, notify_off, 2);
		break;
	case NO_PAIRS:
	case TOO_MANY_PAIRS:
		v = how == NO_PAIRS ? 0 : 3;
		part = find(b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_MQ);
		memcpy(part + sizeof(struct vfn_part), &v, sizeof(v));
		break;
	case RX_MODE_IS_2:
		find(b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_RX)[sizeof(struct vfn_part)] = 2;
		break;
	case NO_SUCH_COMMAND:
		find(b, VFN_PART_NET_CVQ,
			VIRTIO_NET_CTRL_RX)[offsetof(struct vfn_part, selector) + 1] = 77;
		break;
	case FEATURES_COME_LATE:
		part = find(b, VFN_PART_DRV_FEATURES, 0);
		append(b,
			(struct vfn_part *)memcpy(
				&(struct vfn_part){0}, part, sizeof(struct vfn_part)),
			part + sizeof(struct vfn_part));
		cut(b, part, sizeof(struct vfn_part) + 8);
		break;
	case MISALIGNED:
		EDIT_CFG(b, 1, desc, v_.desc + 8);
		break;
	case NOT_MAPPED:
		EDIT_CFG(b, 1, driver, UNMAPPED);
		break;
	case OVERLAPPING:
		EDIT_CFG(b, 1, device, v_.desc);
		break;
	case SPLIT_SIZE:
		EDIT_CFG(b, 1, size, 255);
		break;
	case PACKED_SLOT:
		EDIT_STATE(b, 1, avail, 0x8000 | 256);
		EDIT_STATE(b, 1, used, 0x8000 | 256);
		break;
	case NB_WRONG:
		break;
	}
	seal(b);
}

static void
wrong_values_are_refused_without_effect(const struct shape *shape)
{
	static struct blob full, b;
	struct guest *g = with_state(shape_features(shape), &full);
	enum wrong how;

	for (how = 0; how < NB_WRONG; how++) {
		char what[16];

		if (how == (shape->packed ? SPLIT_SIZE : PACKED_SLOT))
			continue;
		snprintf(what, sizeof(what), "case %d", how);
		b = full;
		spoil(&b, how);
		state_is_refused_without_effect(g, &b, EINVAL, what);
		/* the check does not know of memory */
		if (how < MISALIGNED || how > OVERLAPPING)
			assert_int_equal(put(g, &b, VFN_STATE_CHECK), EINVAL);
		else
			assert_int_equal(put(g, &b, VFN_STATE_CHECK), 0);
	}
	assert_int_equal(put(g, &full, VFN_STATE_SET), 0);
}

static void
running_function_takes_no_state(void **state)
{
	static struct blob b, before, after;
	struct guest *g = guest_open(&(struct guest_conf){.size = 64});

	(void)state;
	rx_post(g, 0, 50, 2048, 1);
	get(g, &b);
	assert_int_equal(put(g, &b, VFN_STATE_SET), EBUSY);
	get(g, &before);
	assert_int_equal(put(g, &b, VFN_STATE_CHECK), 0);
	get(g, &after);
	assert_true(same(&before, &after));
	send_quietly(g, 1, 0, 20);
	receive(g, 0, 0, 20);
}

static void
queue_that_is_off_stays_off(void **state)
{
	static struct blob b;
	struct guest *g =
		guest_open(&(struct guest_conf){.features = MQ, .pairs = 2, .used_pairs = 1});

	(void)state;
	get(g, &b);
	exchange(g);
	assert_int_equal(put(g, &b, VFN_STATE_SET), 0);
	CSET(g, queue_select, RXQ(1));
	assert_int_equal(CGET(g, queue_enable), 0);
	CSET(g, queue_select, RXQ(0));
	assert_int_equal(CGET(g, queue_enable), 1);
	assert_int_equal(VGET(g, queue_suspend), 1);
	/* and nothing moves until it is resumed */
	rx_post(g, 0, 20, 2048, 1);
	guest_driver_ok(g);
	send_quietly(g, 1, 0, 10);
	assert_false(rx_try(g, 0, &got, 20));
	VSET(g, suspend, 0);
	receive(g, 0, 0, 10);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(cut_states_are_refused_without_effect),
		PLAIN(any_changed_byte_is_noticed),
		PLAIN(header_is_checked),
		PLAIN(parts_of_a_wrong_length_are_refused),
		PLAIN(parts_that_are_there_twice_are_refused),
		PLAIN(unknown_parts_are_refused_unless_optional),
		PLAIN(features_are_checked),
		PLAIN(running_function_takes_no_state),
		PLAIN(queue_that_is_off_stays_off),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(other_function_goes_on_in_the_middle),
		SHAPED(what_was_set_is_got_again),
		SHAPED(running_function_tells_exact_positions),
		SHAPED(position_off_by_one_is_noticed),
		SHAPED(changed_and_sealed_states_do_no_harm),
		SHAPED(wrong_values_are_refused_without_effect),
	};

	/* refusals by the thousand */
	if (fn_eal_init("--log-level=pmd.vdpa.vfn.function:critical", NULL) < 0)
		return 1;
	return run_list("state", tests, DIM(tests), shaped, DIM(shaped));
}
