/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* States that are wrong are refused, and change nothing. */

#include "fn_state.h"

#define MQ	 (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_RX))
#define UNMAPPED FREE_AT

/* A function in the middle of its negotiation, and the state of one that has run. */
static struct guest *
with_state(uint64_t features, struct blob *b)
{
	struct guest *g = guest_open(&(struct guest_conf){.features = features | MQ, .pairs = 2});

	guest_use_pairs(g, 2);
	rx_post(g, 0, 50, 2048, 1);
	numbered_send(g, 1, 0, 40);
	numbered_receive(g, 0, 0, 40);
	VSET(g, suspend, 1);
	blob_get(g, b);
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

	blob_get(g, &before);
	ret = blob_put(g, b, VFN_PARTS_SET);
	if (error >= 0 ? ret != error : ret == 0)
		fail_msg("%s: result %d, not %d", what, ret, error);
	blob_get(g, &after);
	if (!blob_same(&before, &after))
		fail_msg("%s: refused, but not without effect", what);
}

static void
cut_states_are_refused_without_effect(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	const uint8_t *at = full.data + STATE_HEADER;
	size_t left = full.len - STATE_HEADER;
	struct vfn_part part = {0};
	uint32_t len, ends = 0;

	(void)state;
	for (len = 0; len < full.len; len++) {
		b = full;
		b.len = len;
		state_is_refused_without_effect(g, &b, EINVAL, "cut");
		if (len <= STATE_HEADER)
			continue;
		/* between two parts it may be a state of fewer queues */
		if (at == full.data + len) {
			vfn_parts_next(&at, &left, &part);
			ends++;
			continue;
		}
		if (at < full.data + len)
			vfn_parts_next(&at, &left, &part);
		blob_seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "cut and sealed");
	}
	assert_in_range(ends, 15, 40);
	assert_int_equal(blob_put(g, &full, VFN_PARTS_SET), 0);
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

	blob_get(g, &before);
	for (i = STATE_HEADER; i < full.len; i++) {
		for (bit = 0; bit < 8; bit += 7) {
			b = full;
			b.data[i] ^= 1 << bit;
			blob_seal(&b);
			if (blob_put(g, &b, VFN_PARTS_SET) == 0) {
				taken++;
				CSET(g, device_status, 0);
				blob_get(g, &before);
				continue;
			}
			refused++;
			blob_get(g, &after);
			if (!blob_same(&before, &after))
				fail_msg("byte %u: refused, but not without effect", i);
		}
	}
	assert_true(refused > 100 && taken > 10);
	assert_int_equal(blob_put(g, &full, VFN_PARTS_SET), 0);
	function_go_on(g);
	numbered_send(g, 1, 40, 10);
	numbered_receive(g, 0, 40, 10);
}

static void
header_is_checked(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);

	(void)state;
#define HEADER_CASE(field, value, error) \
	do { \
		struct vfn_parts_header h_; \
		b = full; \
		memcpy(&h_, b.data, sizeof(h_)); \
		h_.field = (value); \
		memcpy(b.data, &h_, sizeof(h_)); \
		state_is_refused_without_effect(g, &b, error, #field); \
	} while (0)
	HEADER_CASE(magic, 0x12345678, EINVAL);
	HEADER_CASE(version, VFN_PARTS_VERSION + 1, EPROTONOSUPPORT);
	HEADER_CASE(reserved, 1, EINVAL);
	HEADER_CASE(length, h_.length - 1, EINVAL);
	HEADER_CASE(length, h_.length + 1, EINVAL);
	HEADER_CASE(length, UINT32_MAX, EINVAL);
	HEADER_CASE(checksum, h_.checksum + 1, EBADMSG);
#undef HEADER_CASE
	VSET(g, parts_len, VFN_PARTS_SIZE + 1);
	assert_true(VGET(g, parts_len) <= VFN_PARTS_SIZE);
	assert_int_equal(state_command(g, 0), EINVAL);
	assert_int_equal(state_command(g, 4), EINVAL);
}

static void
parts_of_a_wrong_length_are_refused(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	const uint8_t *at = full.data + STATE_HEADER, *value;
	size_t left = full.len - STATE_HEADER;
	struct vfn_part part;

	(void)state;
	for (;;) {
		const uint8_t *begin = at;
		uint8_t *in_b = b.data + (begin - full.data);
		uint32_t length;

		value = vfn_parts_next(&at, &left, &part);
		if (value == NULL)
			break;
		length = part.length;
		b = full;
		part.length = length - 1;
		blob_cut(&b, in_b + sizeof(part), 1);
		memcpy(in_b, &part, sizeof(part));
		blob_seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "a byte less");
		b = full;
		part.length = length + 1;
		blob_cut(&b, in_b, sizeof(part) + length);
		blob_append(&b, &part, value);
		blob_seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "a byte more, at the end");
		b = full;
		part.length = UINT32_MAX;
		memcpy(in_b, &part, sizeof(part));
		blob_seal(&b);
		state_is_refused_without_effect(g, &b, EINVAL, "longer than everything");
	}
}

static void
parts_that_are_there_twice_are_refused(void **state)
{
	static struct blob full, b;
	struct guest *g = with_state(0, &full);
	const uint8_t *at = full.data + STATE_HEADER, *value;
	size_t left = full.len - STATE_HEADER;
	struct vfn_part part;

	(void)state;
	while ((value = vfn_parts_next(&at, &left, &part)) != NULL) {
		b = full;
		blob_append(&b, &part, value);
		blob_seal(&b);
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
		blob_append(&b, &part, "unknown");
		blob_seal(&b);
		state_is_refused_without_effect(g, &b, ENOTSUP, "unknown");
		b = full;
		part.flags = VFN_PART_OPTIONAL;
		blob_append(&b, &part, "unknown");
		blob_seal(&b);
		assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), 0);
		CSET(g, device_status, 0);
	}
	/* the same for fields of the common configuration */
	b = full;
	blob_append(&b,
		&(struct vfn_part){
			.type = VFN_PART_COMMON_CFG, .selector.offset = 1000, .length = 2},
		"ab");
	blob_seal(&b);
	state_is_refused_without_effect(g, &b, ENOTSUP, "unknown field");
	blob_find(&b, VFN_PART_COMMON_CFG, 1000)[offsetof(struct vfn_part, flags)] =
		VFN_PART_OPTIONAL;
	blob_seal(&b);
	assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), 0);
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
	memcpy(&own, blob_find(&full, VFN_PART_DRV_FEATURES, 0) + sizeof(struct vfn_part),
		sizeof(own));
	for (i = 0; i < DIM(bad); i++) {
		b = full;
		v = own | bad[i];
		memcpy(blob_find(&b, VFN_PART_DRV_FEATURES, 0) + sizeof(struct vfn_part), &v,
			sizeof(v));
		blob_seal(&b);
		state_is_refused_without_effect(g, &b, ENOTSUP, "not offered");
	}
	/* one that another one needs */
	v = (own & ~BIT(VIRTIO_NET_F_CTRL_VQ)) | BIT(VIRTIO_NET_F_MQ);
	b = full;
	memcpy(blob_find(&b, VFN_PART_DRV_FEATURES, 0) + sizeof(struct vfn_part), &v, sizeof(v));
	blob_cut(&b, blob_find(&b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_RX),
		sizeof(struct vfn_part) + 1);
	blob_cut(&b, blob_find(&b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_RX | 1 << 8),
		sizeof(struct vfn_part) + 1);
	blob_seal(&b);
	state_is_refused_without_effect(g, &b, ENOTSUP, "needs another");
	/* what was offered has to be the same only if the part says so */
	b = full;
	part = blob_find(&b, VFN_PART_DEV_FEATURES, 0);
	assert_int_equal(part[offsetof(struct vfn_part, flags)], VFN_PART_OPTIONAL);
	part[sizeof(struct vfn_part)] ^= 1;
	part[offsetof(struct vfn_part, flags)] = 0;
	blob_seal(&b);
	state_is_refused_without_effect(g, &b, ENOTSUP, "other function");
	part[offsetof(struct vfn_part, flags)] = VFN_PART_OPTIONAL;
	blob_seal(&b);
	assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), 0);
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
		part = blob_find(b, VFN_PART_STATUS, 0);
		part[sizeof(struct vfn_part)] &= ~VIRTIO_CONFIG_S_FEATURES_OK;
		break;
	case NO_STATUS:
		blob_cut(b, blob_find(b, VFN_PART_STATUS, 0), sizeof(struct vfn_part) + 1);
		break;
	case NO_FEATURES:
		blob_cut(b, blob_find(b, VFN_PART_DRV_FEATURES, 0), sizeof(struct vfn_part) + 8);
		break;
	case OTHER_NUMBER_OF_QUEUES:
	case NO_SUCH_CONFIG_VECTOR:
		v = how == OTHER_NUMBER_OF_QUEUES ? 7 : 6;
		part = blob_find(b, VFN_PART_COMMON_CFG,
			how == OTHER_NUMBER_OF_QUEUES ?
				offsetof(struct vfn_common_cfg, num_queues) :
				offsetof(struct vfn_common_cfg, config_msix_vector));
		memcpy(part + sizeof(struct vfn_part), &v, sizeof(v));
		break;
	case NO_SUCH_QUEUE:
		blob_find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, selector)] = 5;
		break;
	case NO_SUCH_VECTOR:
		EDIT_CFG(b, 1, vector, 6);
		break;
	case RESERVED_FLAG:
		blob_find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, flags)] = 2;
		break;
	case RESERVED_BYTE:
		blob_find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, reserved)] = 1;
		break;
	case RESERVED_SELECTOR:
		blob_find(b, VFN_PART_VQ_CFG, 1)[offsetof(struct vfn_part, selector) + 7] = 1;
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
		blob_cut(b, blob_find(b, VFN_PART_VQ_POSITION, 1),
			sizeof(struct vfn_part) + sizeof(struct vfn_part_vq_position));
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
		part = blob_find(b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_MQ);
		memcpy(part + sizeof(struct vfn_part), &v, sizeof(v));
		break;
	case RX_MODE_IS_2:
		blob_find(b, VFN_PART_NET_CVQ, VIRTIO_NET_CTRL_RX)[sizeof(struct vfn_part)] = 2;
		break;
	case NO_SUCH_COMMAND:
		blob_find(b, VFN_PART_NET_CVQ,
			VIRTIO_NET_CTRL_RX)[offsetof(struct vfn_part, selector) + 1] = 77;
		break;
	case FEATURES_COME_LATE:
		part = blob_find(b, VFN_PART_DRV_FEATURES, 0);
		blob_append(b,
			(struct vfn_part *)memcpy(
				&(struct vfn_part){0}, part, sizeof(struct vfn_part)),
			part + sizeof(struct vfn_part));
		blob_cut(b, part, sizeof(struct vfn_part) + 8);
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
	blob_seal(b);
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
			assert_int_equal(blob_put(g, &b, VFN_PARTS_CHECK), EINVAL);
		else
			assert_int_equal(blob_put(g, &b, VFN_PARTS_CHECK), 0);
	}
	assert_int_equal(blob_put(g, &full, VFN_PARTS_SET), 0);
}

static void
running_function_takes_no_state(void **state)
{
	static struct blob b, before, after;
	struct guest *g = guest_open(&(struct guest_conf){.size = 64});

	(void)state;
	rx_post(g, 0, 50, 2048, 1);
	blob_get(g, &b);
	assert_int_equal(blob_put(g, &b, VFN_PARTS_SET), EBUSY);
	blob_get(g, &before);
	assert_int_equal(blob_put(g, &b, VFN_PARTS_CHECK), 0);
	blob_get(g, &after);
	assert_true(blob_same(&before, &after));
	numbered_send(g, 1, 0, 20);
	numbered_receive(g, 0, 0, 20);
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
	};
	static const struct shaped_test shaped[] = {
		SHAPED(changed_and_sealed_states_do_no_harm),
		SHAPED(wrong_values_are_refused_without_effect),
	};

	/* refusals by the thousand */
	if (fn_eal_init("--log-level=pmd.vdpa.vfn.function:critical", NULL) < 0)
		return 1;
	return run_list("state refused", tests, DIM(tests), shaped, DIM(shaped));
}
