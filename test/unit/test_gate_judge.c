/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The judge of lib/gate: what may come when, features, the small requests, verdicts, and what stock
 * front-ends have been heard to say. The rules of memory and rings are in test_gate_rings.c.
 */

#include "gate_rule_tests.h"
#include "gate_traces.h"

static void
headers(void **state)
{
	const struct rule rules[] = {
		{NEW, "no such request", gf_empty(0), NO_FDS},
		{NEW, "no such request", gf_empty(GATE_NB_REQUESTS), NO_FDS},
		{NEW, "no such request", gf_empty(UINT32_MAX), NO_FDS},
		{NEW, "another version of the protocol", with_flags(gf_empty(1), 0), NO_FDS},
		{NEW, "another version of the protocol", with_flags(gf_empty(1), 2), NO_FDS},
		{NEW, "an answer to nothing that was asked", with_flags(gf_empty(1), 5), NO_FDS},
		{NEW, "the size of its payload is wrong", with_size(gf_empty(1), 8), NO_FDS},
		{NEW, "the size of its payload is wrong", with_size(U64(2, 0), 7), NO_FDS},
		{NEW, "the size of its payload is wrong", with_size(U64(2, 0), UINT32_MAX), NO_FDS},
		{FEATURES, "the size of its payload is wrong", with_size(gf_table(1), 8), NO_FDS},
		{NEW, NULL, gf_empty(GATE_GET_FEATURES), NO_FDS},
		{NEW, FD_COUNT, gf_empty(GATE_GET_FEATURES), 1, EVENT},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
not_offered(void **state)
{
	static const uint32_t requests[] = {GATE_SET_VRING_ENDIAN, GATE_CREATE_CRYPTO_SESSION,
		GATE_CLOSE_CRYPTO_SESSION, GATE_POSTCOPY_ADVISE, GATE_POSTCOPY_LISTEN,
		GATE_POSTCOPY_END, GATE_RESET_DEVICE, GATE_VRING_KICK, GATE_GET_SHARED_OBJECT,
		GATE_SET_DEVICE_STATE_FD, GATE_CHECK_DEVICE_STATE};
	enum gate_phase phase;
	size_t i;

	(void)state;
	for (i = 0; i < DIM(requests); i++) {
		for (phase = NEW; phase <= RUNNING; phase++) {
			begin();
			come_to(phase, GF_FEATURES);
			assert_string_equal(
				say(gf_message(requests[i], gate_proto(requests[i])->size_min), 0),
				"not offered");
		}
	}
}

static void
before_its_time(void **state)
{
	const struct rule rules[] = {
		{NEW, "it comes before features", gf_table(1), 1, MEM},
		{NEW, "it comes before features", gf_log(0x100000, 0), 1, MEM},
		{NEW, "it comes before features", gf_inflight(GATE_GET_INFLIGHT_FD, 0, 0, 2, 64),
			NO_FDS},
		{NEW, "it comes before features",
			gf_inflight(GATE_SET_INFLIGHT_FD, 0x10000, 0, 2, 64), 1, MEM},
		{NEW, "it comes before features", gf_addr(0, GF_UVA), NO_FDS},
		{NEW, "it comes before features", U64(GATE_SET_VRING_KICK, 0), 1, EVENT},
		{NEW, "it comes before features", gf_slot(GATE_ADD_MEM_REG, 0), 1, MEM},
		{FEATURES, "it comes before memory", gf_addr(0, GF_UVA), NO_FDS},
		{FEATURES, "it comes before memory", U64(GATE_SET_VRING_KICK, 0), 1, EVENT},
		/* As stock front-ends do. */
		{NEW, NULL, U64(GATE_SET_VRING_CALL, 0), 1, EVENT},
		{NEW, NULL, U64(GATE_SET_VRING_ERR, 0), 1, EVENT},
		{NEW, NULL, STATE(GATE_SET_VRING_ENABLE, 0, 1), NO_FDS},
		{NEW, NULL, STATE(GATE_GET_VRING_BASE, 0, 0), NO_FDS},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
features(void **state)
{
	const struct rule rules[] = {
		{NEW, "features that were not offered", U64(2, GF_FEATURES | 1), NO_FDS},
		{NEW, NULL, U64(2, GF_OFFER), NO_FDS},
		{NEW, "protocol features that were not offered", U64(16, GF_PROTOCOL | 1 << 8),
			NO_FDS},
		{NEW, NULL, U64(16, 0), NO_FDS},
		{RUNNING, "other features while a ring is running",
			U64(2, GF_FEATURES | GF_BIT(GATE_F_EVENT_IDX)), NO_FDS},
		{RUNNING, NULL, U64(2, GF_FEATURES), NO_FDS},
		{RUNNING, NULL, U64(2, GF_FEATURES | GF_BIT(GATE_F_LOG_ALL)), NO_FDS},
		{RUNNING, "other protocol features while a ring is running", U64(16, 0), NO_FDS},
		{RUNNING, NULL, U64(16, GF_PROTOCOL), NO_FDS},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
others(void **state)
{
	const struct rule rules[] = {
		{RUNNING, NULL, gf_config(24, 0, 256, 0), NO_FDS},
		{RUNNING, NULL, gf_config(24, 255, 1, 0), NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, 0, 257, 0), NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, 255, 2, 0), NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, UINT32_MAX, 2, 0),
			NO_FDS},
		{RUNNING, "more than the configuration has", gf_config(24, 2, UINT32_MAX, 0),
			NO_FDS},
		{RUNNING, "fewer bytes than it says", with_size(gf_config(24, 0, 9, 0), 20),
			NO_FDS},
		{RUNNING, NULL, with_size(gf_config(24, 0, 8, 0), 20), NO_FDS},
		{RUNNING, NULL, gf_config(25, 0, 8, 1), NO_FDS},
		{RUNNING, "unknown flags", gf_config(25, 0, 8, 2), NO_FDS},
		{NEW, "an MTU out of range", U64(GATE_NET_SET_MTU, 67), NO_FDS},
		{NEW, NULL, U64(GATE_NET_SET_MTU, 68), NO_FDS},
		{NEW, "an MTU out of range", U64(GATE_NET_SET_MTU, 65536), NO_FDS},
		{NEW, NULL, U64(GATE_SET_STATUS, 255), NO_FDS},
		{NEW, "a status of more than 8 bits", U64(GATE_SET_STATUS, 256), NO_FDS},
		{NEW, NULL, gf_empty(GATE_SET_BACKEND_REQ_FD), 1, GATE_FD_SOCKET},
		{NEW, "its descriptor is no socket", U64(GATE_SET_BACKEND_REQ_FD, 0), 1, EVENT},
		{NEW, FD_COUNT, U64(GATE_SET_BACKEND_REQ_FD, 0), NO_FDS},
		{NEW, NULL, U64(GATE_SEND_RARP, 0), NO_FDS},
		{RUNNING, NULL, U64(GATE_SEND_RARP, 0), NO_FDS},
	};

	(void)state;
	check(rules, DIM(rules), GF_FEATURES);
}

static void
protocol_features_have_to_be_negotiated(void **state)
{
	uint32_t r;

	(void)state;
	for (r = 0; r < GATE_NB_REQUESTS; r++) {
		const struct gate_proto *row = gate_proto(r);
		unsigned int n;

		if (row == NULL || row->feature == GATE_PF_NONE || row->fate == GATE_FATE_REFUSED)
			continue;
		begin();
		come_to(RUNNING, GF_FEATURES);
		must(STATE(GATE_GET_VRING_BASE, 0, 0), 0);
		must(STATE(GATE_GET_VRING_BASE, 1, 0), 0);
		must(U64(GATE_SET_PROTOCOL_FEATURES, GF_PROTOCOL & ~GF_BIT(row->feature)), 0);
		n = row->fds_min;
		assert_string_equal(say(gf_message(r, row->size_max), n),
			"its protocol feature was not negotiated");
	}
}

static void
reply_ack_begins_with_the_message_that_negotiates_it(void **state)
{
	struct gate_message m = U64(GATE_SET_PROTOCOL_FEATURES, GF_PROTOCOL);

	(void)state;
	m.flags |= GATE_NEED_REPLY;
	begin();
	must(m, 0);
	assert_true(j.acked);
	m.payload.u64 &= ~GF_BIT(GATE_PF_REPLY_ACK);
	must(m, 0);
	assert_false(j.acked);
}

static void
owner_reset_forgets_everything(void **state)
{
	static const struct gate_state nothing;

	(void)state;
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(gf_log(0x40000, 0), 1);
	must(gf_empty(GATE_RESET_OWNER), 0);
	assert_true(j.acked); /* by what was negotiated when it came */
	assert_memory_equal(&conn, &nothing, sizeof(conn));
}

static void
refusals_are_said_if_they_can_be(void **state)
{
	struct gate_message m = U64(GATE_SET_FEATURES, GF_BIT(63));

	(void)state;
	begin();
	say(m, 0);
	assert_int_equal(j.verdict, GATE_HANG_UP); /* nothing negotiated */
	come_to(NEW, 0);
	say(m, 0);
	assert_int_equal(j.verdict, GATE_REFUSE);
	m.flags = GATE_VERSION;
	say(m, 0);
	assert_int_equal(j.verdict, GATE_HANG_UP); /* not asked */
}

static void
certain_ones_only_before_it_is_live(void **state)
{
	(void)state;
	begin();
	come_to(RUNNING, GF_FEATURES);
	must(STATE(GATE_SET_VRING_ENABLE, 0, 1), 0);
	assert_true(j.certain);
	must(U64(GATE_SET_STATUS, 0xf), 0);
	assert_true(j.certain);
	must(STATE(GATE_SET_VRING_ENABLE, 0, 0), 0);
	assert_false(j.certain);
	must(U64(GATE_SET_STATUS, 0), 0);
	assert_false(j.certain);
	must(gf_table(3), 3);
	assert_true(j.certain); /* the driver has taken DRIVER_OK back */
	must(U64(GATE_SET_STATUS, 0xf), 0);
	must(gf_table(2), 2);
	assert_false(j.certain);
	must(gf_empty(GATE_GET_FEATURES), 0);
	assert_false(j.certain);
}

static struct gate_message
recorded(const struct gate_trace_message *t)
{
	struct gate_message m = gf_message(t->request, strlen(t->payload) / 2);
	unsigned int byte, i;

	m.flags = t->flags;
	for (i = 0; i < m.size; i++) {
		assert_int_equal(sscanf(t->payload + 2 * i, "%2x", &byte), 1);
		m.payload.raw[i] = byte;
	}
	return m;
}

static void
stock_front_ends_are_right(void **state)
{
	unsigned int i, k, started = 0;
	size_t at;

	(void)state;
	for (i = 0; i < DIM(traces); i++) {
		begin();
		offer.features = UINT64_MAX; /* they ask for what vfn-vhost offered then */
		offer.protocol_features |= 0x1ffff;
		for (at = 0; at < traces[i].n; at++) {
			const struct gate_trace_message *t = &traces[i].messages[at];

			for (k = 0; k < GATE_MAX_FDS; k++)
				fds[k] = (struct gate_fd){t->kind, 10, t->size, 4096};
			if (say(recorded(t), t->nb_fds) != NULL)
				fail_msg("%s, message %zu, %s: %s", traces[i].name, at,
					gate_proto_name(t->request), j.reason);
			started += gate_phase(&conn) == RUNNING;
		}
	}
	assert_true(started > 0);
}

static void
back_channel(void **state)
{
	struct gate_message m = gf_message(GATE_BACK_VRING_HOST_NOTIFIER, 24);

	(void)state;
	assert_null(gate_judge_back(&m, 1));
	assert_non_null(gate_judge_back(&m, 0));
	assert_non_null(gate_judge_back(&m, 2));
	m.payload.u64 = GATE_NO_FD;
	assert_null(gate_judge_back(&m, 0));
	assert_non_null(gate_judge_back(&m, 1));
	m.size = 16;
	assert_non_null(gate_judge_back(&m, 0));
	m = gf_empty(GATE_BACK_CONFIG_CHANGE);
	assert_null(gate_judge_back(&m, 0));
	assert_non_null(gate_judge_back(&m, 1));
	m = gf_message(GATE_BACK_IOTLB_MSG, 32);
	assert_null(gate_judge_back(&m, 0));
	assert_non_null(gate_judge_back(&m, 1));
	m.size = 25;
	assert_non_null(gate_judge_back(&m, 0));
	m = gf_message(4, 32); /* of vrings */
	assert_non_null(gate_judge_back(&m, 0));
}

static struct gate_message
with_iotlb(uint8_t type, uint64_t iova, uint64_t size, uint64_t uva, uint8_t perm)
{
	struct gate_message m = gf_message(GATE_IOTLB_MSG, 32);

	m.payload.iotlb.type = type;
	m.payload.iotlb.iova = iova;
	m.payload.iotlb.size = size;
	m.payload.iotlb.uva = uva;
	m.payload.iotlb.perm = perm;
	return m;
}

/* Behind an IOMMU: what addresses mean, and rings at addresses that mean nothing here. */
static void
translations(void **state)
{
	const uint64_t features = GF_FEATURES | GF_BIT(GATE_F_ACCESS_PLATFORM);
	const struct rule rules[] = {
		{MEMORY, NULL, with_iotlb(2, 0xfffff000, 4096, GF_UVA, 3), NO_FDS},
		{MEMORY, NULL, with_size(with_iotlb(2, 0, GF_SIZE, GF_UVA, 1), 26), NO_FDS},
		{MEMORY, "it is not in the table", with_iotlb(2, 0, 4096, END, 3), NO_FDS},
		{MEMORY, "it is not in the table", with_iotlb(2, 0, 4096, END - 4095, 3), NO_FDS},
		{MEMORY, "it is not in the table", with_iotlb(2, 0, 4096, GF_UVA - 1, 3), NO_FDS},
		{MEMORY, "a range that is empty or wraps", with_iotlb(2, 0, 0, GF_UVA, 3), NO_FDS},
		{MEMORY, "a range that is empty or wraps", with_iotlb(2, UINT64_MAX, 2, GF_UVA, 3),
			NO_FDS},
		{MEMORY, "unknown permissions", with_iotlb(2, 0, 4096, GF_UVA, 0), NO_FDS},
		{MEMORY, "unknown permissions", with_iotlb(2, 0, 4096, GF_UVA, 4), NO_FDS},
		{MEMORY, NULL, with_iotlb(3, 0, 0, 0, 0), NO_FDS},
		{MEMORY, NULL, with_iotlb(3, 0, UINT64_MAX, 0, 0), NO_FDS},
		{MEMORY, "a range that is empty or wraps", with_iotlb(3, 1, 0, 0, 0), NO_FDS},
		{MEMORY, NULL, with_iotlb(4, 4096, 1, 0, 0), NO_FDS},
		{MEMORY, "a range that is empty or wraps", with_iotlb(4, UINT64_MAX, 1, 0, 0),
			NO_FDS},
		{MEMORY, "an unknown type", with_iotlb(1, 0, 4096, GF_UVA, 1), NO_FDS},
		{FEATURES, "it comes before memory", with_iotlb(3, 0, 0, 0, 0), NO_FDS},
		{MEMORY, NULL, with_addr(0, 16, 2, 4, 0, 0), NO_FDS},
		{MEMORY, "an area of it is not aligned", with_addr(0, 8, 2, 4, 0, 0), NO_FDS},
		{MEMORY, "an area of it is not aligned", with_addr(0, 16, 2, UINT64_MAX - 3, 0, 0),
			NO_FDS},
	};
	const struct rule plain[] = {{MEMORY, "its device feature was not negotiated",
		with_iotlb(2, 0, 4096, GF_UVA, 3), NO_FDS}};

	(void)state;
	check(rules, DIM(rules), features);
	check(plain, DIM(plain), GF_FEATURES);
}

/* From one region right into the next one of the front-end's addresses. */
static void
translation_across_regions(void **state)
{
	struct gate_message table = gf_table(2);

	(void)state;
	begin();
	come_to(FEATURES, GF_FEATURES | GF_BIT(GATE_F_ACCESS_PLATFORM));
	table.payload.table.regions[1].uva = END;
	must(table, 2);
	must(with_iotlb(2, 0, 8192, END - 4096, 3), 0);
	assert_true(j.certain);
	must(with_iotlb(2, 0, GF_SIZE + GF_SIZE_2, GF_UVA, 3), 0);
	assert_non_null(say(with_iotlb(2, 0, GF_SIZE + GF_SIZE_2 + 1, GF_UVA, 3), 0));
	must(with_iotlb(3, 0, 8192, 0, 0), 0);
	assert_false(j.certain);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers),
		cmocka_unit_test(not_offered),
		cmocka_unit_test(before_its_time),
		cmocka_unit_test(features),
		cmocka_unit_test(translations),
		cmocka_unit_test(translation_across_regions),
		cmocka_unit_test(others),
		cmocka_unit_test(protocol_features_have_to_be_negotiated),
		cmocka_unit_test(reply_ack_begins_with_the_message_that_negotiates_it),
		cmocka_unit_test(owner_reset_forgets_everything),
		cmocka_unit_test(refusals_are_said_if_they_can_be),
		cmocka_unit_test(certain_ones_only_before_it_is_live),
		cmocka_unit_test(stock_front_ends_are_right),
		cmocka_unit_test(back_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
