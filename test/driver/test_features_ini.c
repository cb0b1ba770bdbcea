/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Does doc/vdpadevs/features/vfn.ini say what the driver offers? The file's format and names are
 * those of DPDK's doc/guides/vdpadevs/features/. Every test of the comparison runs on a doctored
 * copy of the file and has to find the one thing that was changed.
 *
 * FEATURES_INI is the file's path, see meson.build.
 */

#include <ctype.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include <rte_bus_vdev.h>
#include <rte_common.h>
#include <rte_eal.h>
#include <rte_log.h>
#include <rte_vdpa.h>
#include <rte_vhost.h>
#include <vfn_sdk.h>

#include <rte_vdpa_vfn.h>

/* What is offered only when device arguments ask for it. */
#define ALL_ARGS "queues=2,mtu=1500,doorbell=on,dma=direct"

#define BIT(n) (UINT64_C(1) << (n))

/* What decides about an entry. */
enum kind {
	FEATURE,  /* a virtio feature bit */
	PROTOCOL, /* a vhost-user protocol feature bit */
	STATS,	  /* statistics have names */
	STATED,	  /* nothing that a program could ask */
};

/* Every name of DPDK's default.ini, in its order. */
static const struct entry {
	const char *name;
	enum kind kind;
	unsigned int bit;
} entries[] = {
	{"csum", FEATURE, VIRTIO_NET_F_CSUM},
	{"guest csum", FEATURE, VIRTIO_NET_F_GUEST_CSUM},
	{"mac", FEATURE, VIRTIO_NET_F_MAC},
	{"gso", FEATURE, VIRTIO_NET_F_GSO},
	{"guest tso4", FEATURE, VIRTIO_NET_F_GUEST_TSO4},
	{"guest tso6", FEATURE, VIRTIO_NET_F_GUEST_TSO6},
	{"ecn", FEATURE, VIRTIO_NET_F_HOST_ECN},
	{"ufo", FEATURE, VIRTIO_NET_F_HOST_UFO},
	{"host tso4", FEATURE, VIRTIO_NET_F_HOST_TSO4},
	{"host tso6", FEATURE, VIRTIO_NET_F_HOST_TSO6},
	{"mrg rxbuf", FEATURE, VIRTIO_NET_F_MRG_RXBUF},
	{"ctrl vq", FEATURE, VIRTIO_NET_F_CTRL_VQ},
	{"ctrl rx", FEATURE, VIRTIO_NET_F_CTRL_RX},
	{"any layout", FEATURE, VIRTIO_F_ANY_LAYOUT},
	{"guest announce", FEATURE, VIRTIO_NET_F_GUEST_ANNOUNCE},
	{"mq", FEATURE, VIRTIO_NET_F_MQ},
	{"version 1", FEATURE, VIRTIO_F_VERSION_1},
	{"log all", FEATURE, VHOST_F_LOG_ALL},
	{"indirect desc", FEATURE, VIRTIO_RING_F_INDIRECT_DESC},
	{"event idx", FEATURE, VIRTIO_RING_F_EVENT_IDX},
	{"mtu", FEATURE, VIRTIO_NET_F_MTU},
	{"in_order", FEATURE, VIRTIO_F_IN_ORDER},
	{"IOMMU platform", FEATURE, VIRTIO_F_ACCESS_PLATFORM},
	{"packed", FEATURE, VIRTIO_F_RING_PACKED},
	{"proto mq", PROTOCOL, VHOST_USER_PROTOCOL_F_MQ},
	{"proto log shmfd", PROTOCOL, VHOST_USER_PROTOCOL_F_LOG_SHMFD},
	{"proto rarp", PROTOCOL, VHOST_USER_PROTOCOL_F_RARP},
	{"proto reply ack", PROTOCOL, VHOST_USER_PROTOCOL_F_REPLY_ACK},
	{"proto host notifier", PROTOCOL, VHOST_USER_PROTOCOL_F_HOST_NOTIFIER},
	{"proto pagefault", PROTOCOL, VHOST_USER_PROTOCOL_F_PAGEFAULT},
	{"queue statistics", STATS, 0},
	{"FreeBSD", STATED, 0},
	{"Linux", STATED, 0},
	{"ARMv7", STATED, 0},
	{"ARMv8", STATED, 0},
	{"Power8", STATED, 0},
	{"x86-32", STATED, 0},
	{"x86-64", STATED, 0},
	{"Usage doc", STATED, 0},
	{"Design doc", STATED, 0},
	{"Perf doc", STATED, 0},
};

/*
 * Bits that DPDK's table has no name for. One that is neither here nor above is not documented
 * anywhere: doc/vdpadevs/vfn.rst lists those here.
 */
static const uint64_t nameless_features = BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_GUEST_ECN) |
	BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
	BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
	BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | BIT(VHOST_USER_F_PROTOCOL_FEATURES);
static const uint64_t nameless_protocol = BIT(VHOST_USER_PROTOCOL_F_NET_MTU) |
	BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_STATUS) |
	BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
	BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD);

/* What a device offers. */
struct offer {
	uint64_t features;
	uint64_t protocol;
	bool stats;
};

/* What is wrong with a file: the number of faults, and the first one in words. */
struct verdict {
	unsigned int faults;
	char first[160];
};

static char ini[8192]; /* the file */
static struct offer offered;

static void __rte_format_printf(2, 3) fault(struct verdict *v, const char *fmt, ...)
{
	va_list ap;

	if (v->faults++ > 0)
		return;
	va_start(ap, fmt);
	vsnprintf(v->first, sizeof(v->first), fmt, ap);
	va_end(ap);
}

static char *
strip(char *s)
{
	char *end = s + strlen(s);

	while (end > s && isspace((unsigned char)end[-1]))
		*--end = '\0';
	while (isspace((unsigned char)*s))
		s++;
	return s;
}

/* One "name = Y" line. */
static void
parse_entry(struct verdict *v, bool listed[RTE_DIM(entries)], char *line)
{
	char *value = strchr(line, '=');
	size_t i;

	if (value == NULL) {
		fault(v, "not an entry: %s", line);
		return;
	}
	*value++ = '\0';
	line = strip(line);
	value = strip(value);
	for (i = 0; i < RTE_DIM(entries) && strcmp(line, entries[i].name) != 0; i++)
		;
	if (i == RTE_DIM(entries))
		fault(v, "%s: unknown name", line);
	else if (listed[i])
		fault(v, "%s: listed twice", line);
	/* DPDK also knows P, partially; there is no half of a bit. */
	else if (strcmp(value, "Y") != 0 && (entries[i].kind != STATED || strcmp(value, "P") != 0))
		fault(v, "%s: its value is \"%s\"", line, value);
	if (i < RTE_DIM(entries))
		listed[i] = true;
}

static void
parse(struct verdict *v, bool listed[RTE_DIM(entries)], const char *text)
{
	char *copy = strdup(text), *rest = copy, *line;
	bool in_section = false;

	assert_non_null(copy);
	while ((line = strsep(&rest, "\n")) != NULL) {
		line = strip(line);
		if (line[0] == '\0' || line[0] == ';')
			continue;
		if (line[0] == '[') {
			if (strcmp(line, "[Features]") != 0 || in_section)
				fault(v, "unexpected section %s", line);
			in_section = true;
		} else if (!in_section) {
			fault(v, "before [Features]: %s", line);
		} else {
			parse_entry(v, listed, line);
		}
	}
	free(copy);
}

/* Compare a file's text with what a device offers. */
static struct verdict
compare(const char *text, const struct offer *offer)
{
	uint64_t features = offer->features & ~nameless_features;
	uint64_t protocol = offer->protocol & ~nameless_protocol;
	bool listed[RTE_DIM(entries)] = {false};
	struct verdict v = {0};
	size_t i;

	parse(&v, listed, text);
	for (i = 0; i < RTE_DIM(entries); i++) {
		const struct entry *e = &entries[i];
		bool has = listed[i];

		if (e->kind == FEATURE) {
			has = offer->features & BIT(e->bit);
			features &= ~BIT(e->bit);
		} else if (e->kind == PROTOCOL) {
			has = offer->protocol & BIT(e->bit);
			protocol &= ~BIT(e->bit);
		} else if (e->kind == STATS) {
			has = offer->stats;
		}
		if (has != listed[i])
			fault(&v, "%s: %s", e->name,
				has ? "offered, not listed" : "listed, not offered");
	}
	if (features != 0 || protocol != 0)
		fault(&v, "bits without a name: features 0x%" PRIx64 ", protocol 0x%" PRIx64,
			features, protocol);
	return v;
}

static void
assert_fault(const char *text, const struct offer *offer, const char *first)
{
	struct verdict v = compare(text, offer);

	assert_string_equal(v.first, first);
	assert_int_equal(v.faults, 1);
}

/* The file without the line of a name; returns false if it has none. */
static bool
without(char *copy, size_t size, const char *name)
{
	const char *line = ini, *next;
	size_t len = strlen(name);
	bool found = false;

	copy[0] = '\0';
	for (; *line != '\0'; line = next) {
		next = line + strcspn(line, "\n");
		next += *next == '\n';
		if (strncmp(line, name, len) == 0 && line[len + strspn(line + len, " \t")] == '=')
			found = true;
		else
			snprintf(copy + strlen(copy), size - strlen(copy), "%.*s",
				(int)(next - line), line);
	}
	return found;
}

/* The file with a line more, at its end or at its beginning. */
static const char *
with(const char *last)
{
	static char copy[sizeof(ini) + 128];

	snprintf(copy, sizeof(copy), "%s%s\n", ini, last);
	return copy;
}

static const char *
with_first(const char *first)
{
	static char copy[sizeof(ini) + 128];

	snprintf(copy, sizeof(copy), "%s\n%s", first, ini);
	return copy;
}

static struct offer
probe(const char *args)
{
	struct rte_vdpa_device *vdpa;
	struct offer offer = {0};

	assert_int_equal(rte_vdev_init("vdpa_vfn0", args), 0);
	vdpa = rte_vdpa_find_device_by_name("vdpa_vfn0");
	assert_non_null(vdpa);
	assert_int_equal(rte_vdpa_get_features(vdpa, &offer.features), 0);
	/* the driver negotiates it itself */
	offer.features |= rte_vdpa_vfn_features("vdpa_vfn0") & BIT(VIRTIO_F_ACCESS_PLATFORM);
	assert_int_equal(rte_vdpa_get_protocol_features(vdpa, &offer.protocol), 0);
	offer.stats = rte_vdpa_get_stats_names(vdpa, NULL, 0) > 0;
	assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
	return offer;
}

/* ---- tests ---- */

static void
file_lists_what_the_driver_offers(void **state)
{
	struct verdict v = compare(ini, &offered);

	(void)state;
	assert_string_equal(v.first, "");
	assert_int_equal(v.faults, 0);
}

/* doc/vdpadevs/vfn.rst: these come with the device arguments of the same purpose. */
static void
some_need_their_device_arguments(void **state)
{
	struct offer plain = probe("");

	(void)state;
	assert_true(plain.features ==
		(offered.features &
			~(BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_MTU) |
				BIT(VIRTIO_F_ACCESS_PLATFORM))));
	assert_true(plain.protocol ==
		(offered.protocol &
			~(BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |
				BIT(VHOST_USER_PROTOCOL_F_HOST_NOTIFIER))));
	assert_true(probe("doorbell=on").protocol == offered.protocol);
	assert_true(probe("queues=2").features == (plain.features | BIT(VIRTIO_NET_F_MQ)));
	assert_true(probe("mtu=1500").features == (plain.features | BIT(VIRTIO_NET_F_MTU)));
}

static void
offloads_are_offered_as_asked_for(void **state)
{
	const uint64_t csum = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |
		BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	const uint64_t segments = BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
		BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO) |
		BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |
		BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO);
	uint64_t all = probe("").features;

	(void)state;
	assert_true((all & (csum | segments)) == (csum | segments));
	assert_true(probe("offloads=all").features == all);
	assert_true(probe("offloads=csum").features == (all & ~segments));
	assert_true(probe("offloads=off").features == (all & ~(segments | csum)));
}

static void
every_entry_that_is_missing_or_too_many_is_found(void **state)
{
	char copy[sizeof(ini)], line[64], expected[64];
	size_t i;

	(void)state;
	for (i = 0; i < RTE_DIM(entries); i++) {
		const char *name = entries[i].name;

		if (entries[i].kind == STATED)
			continue;
		if (without(copy, sizeof(copy), name)) {
			snprintf(expected, sizeof(expected), "%s: offered, not listed", name);
			assert_fault(copy, &offered, expected);
		} else {
			snprintf(line, sizeof(line), "%s = Y", name);
			snprintf(expected, sizeof(expected), "%s: listed, not offered", name);
			assert_fault(with(line), &offered, expected);
		}
	}
}

static void
every_bit_that_comes_or_goes_is_found(void **state)
{
	unsigned int bit;

	(void)state;
	for (bit = 0; bit < 64; bit++) {
		struct offer other = offered;

		other.features ^= BIT(bit);
		assert_int_equal(compare(ini, &other).faults, !(nameless_features & BIT(bit)));
		other = offered;
		other.protocol ^= BIT(bit);
		assert_int_equal(compare(ini, &other).faults, !(nameless_protocol & BIT(bit)));
	}
}

static void
bad_lines_are_refused(void **state)
{
	(void)state;
	assert_fault(with("csums = Y"), &offered, "csums: unknown name");
	assert_fault(with("CSUM = Y"), &offered, "CSUM: unknown name");
	assert_fault(with("csum = Y"), &offered, "csum: listed twice");
	assert_fault(with("FreeBSD = N"), &offered, "FreeBSD: its value is \"N\"");
	assert_fault(with("FreeBSD ="), &offered, "FreeBSD: its value is \"\"");
	assert_fault(with("FreeBSD"), &offered, "not an entry: FreeBSD");
	assert_fault(with("[Limits]"), &offered, "unexpected section [Limits]");
	assert_fault(with_first("FreeBSD = Y"), &offered, "before [Features]: FreeBSD = Y");
}

/* ---- set-up ---- */

static int
read_ini(void)
{
	FILE *file = fopen(FEATURES_INI, "r");
	size_t len;

	if (file == NULL) {
		fprintf(stderr, "cannot open %s\n", FEATURES_INI);
		return -1;
	}
	len = fread(ini, 1, sizeof(ini) - 1, file);
	fclose(file);
	return len < sizeof(ini) - 1 ? 0 : -1;
}

static int
set_up(void **state)
{
	static char args[][16] = {"features_ini", "--no-huge", "-m", "64", "--no-pci",
		"--no-shconf", "--no-telemetry", "-l", "0"};
	static char *argv[RTE_DIM(args) + 1];
	size_t i;

	(void)state;
	if (read_ini() != 0)
		return -1;
	for (i = 0; i < RTE_DIM(args); i++)
		argv[i] = args[i];
	/* the log's default is standard output, where the test protocol goes */
	rte_openlog_stream(stderr);
	if (rte_eal_init(RTE_DIM(args), argv) < 0)
		return -1;
	offered = probe(ALL_ARGS);
	return 0;
}

static int
stop_eal(void **state)
{
	(void)state;
	return rte_eal_cleanup();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_lists_what_the_driver_offers),
		cmocka_unit_test(some_need_their_device_arguments),
		cmocka_unit_test(offloads_are_offered_as_asked_for),
		cmocka_unit_test(every_entry_that_is_missing_or_too_many_is_found),
		cmocka_unit_test(every_bit_that_comes_or_goes_is_found),
		cmocka_unit_test(bad_lines_are_refused),
	};

	return cmocka_run_group_tests_name("features.ini", tests, set_up, stop_eal);
}
