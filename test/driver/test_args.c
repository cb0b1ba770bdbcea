/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Devices of the vDPA driver from their arguments to their removal, with the driver's objects
 * linked in. No guest: what a guest does is tested in test/topology. What EAL and the driver
 * log is kept, as the message has to name the argument that is wrong.
 */

#include <dirent.h>
#include <sched.h>

#include <rte_bus_vdev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_log.h>
#include <rte_vdpa.h>
#include <rte_vhost.h>

#include <ntb_sim.h>
#include <vfn_drv.h>

#include <vfn_endpoint_server.h>
#include <vfn_net_function.h>
#include <vfn_ntb.h>
#include <vfn_ntb_server.h>

#include "endpoint_link.h"
#include <rte_vdpa_vfn.h>
#include "fn_harness.h"

static FILE *log_file;
static char log_text[65536];
static int some_cpu;

/* What was logged since the last call. */
static const char *
logged(void)
{
	static size_t seen;
	size_t n;

	fflush(log_file);
	fseek(log_file, (long)seen, SEEK_SET);
	n = fread(log_text, 1, sizeof(log_text) - 1, log_file);
	log_text[n] = '\0';
	seen += n;
	fseek(log_file, 0, SEEK_END);
	return log_text;
}

static struct rte_vdpa_device *
device(const char *name)
{
	return rte_vdpa_find_device_by_name(name);
}

static int
remove_all(void **state)
{
	char name[32];
	int i;

	(void)state;
	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "vdpa_vfn%d", i);
		if (device(name) != NULL)
			rte_vdev_uninit(name);
	}
	logged();
	return 0;
}

static void
accepted(const char *args)
{
	logged();
	if (rte_vdev_init("vdpa_vfn0", args) != 0)
		fail_msg("\"%s\" is refused: %s", args, logged());
	assert_non_null(device("vdpa_vfn0"));
	assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
	assert_null(device("vdpa_vfn0"));
}

/* Refused with a message in which the text occurs. */
static void
refused(const char *args, const char *text)
{
	logged();
	if (rte_vdev_init("vdpa_vfn0", args) == 0)
		fail_msg("\"%s\" is accepted", args);
	assert_null(device("vdpa_vfn0"));
	if (strstr(logged(), text) == NULL)
		fail_msg("\"%s\": no \"%s\" in: %s", args, text, log_text);
}

static void
each_argument_takes_its_values(void **state)
{
	static const char *const good[] = {
		"",
		"queues=1",
		"queues=64",
		"queues=08",
		"mac=02:00:00:00:00:01",
		"mac=52:54:00:ab:CD:ef",
		"mtu=68",
		"mtu=65535",
		"port=loopback",
		"port=wire",
		"port=wire,peer=vdpa_vfn1",
		"peer=other,port=wire",
		"port=sink",
		"gen=14",
		"gen=65534",
		"gen=64,port=gen",
		"ethdev=net_null0",
		"port=ethdev,ethdev=net_null0,rate-mbps=100",
		"offloads=all",
		"offloads=csum,port=gen,gen=64",
		"offloads=off",
		"rate-mbps=1",
		"rate-mbps=1000000,gen=64",
		"idle=busy",
		"idle=sleep",
		"doorbell=on",
		"doorbell=off",
		"doorbell=on,idle=sleep",
		"lm=hw",
		"lm=shadow",
		"lm=off",
		"dma=direct",
		"dma=iommu",
		"dma=bounce,pool=0x1000+4K",
		"pool=[2G+64M,0x7fff0000+64K],dma=bounce,lm=shadow",
		"queues=2,mac=02:00:00:00:00:01,mtu=1500,port=wire,peer=x,idle=sleep",
	};
	char args[64];
	size_t i;

	(void)state;
	for (i = 0; i < DIM(good); i++)
		accepted(good[i]);
	accepted(NULL);
	snprintf(args, sizeof(args), "poll-cpu=%d", some_cpu);
	accepted(args);
	snprintf(args, sizeof(args), "poll-cpu=[%d]", some_cpu);
	accepted(args);
	snprintf(args, sizeof(args), "poll-cpu=[%d-%d],queues=4", some_cpu, some_cpu);
	accepted(args);
}

static void
values_that_are_none_are_refused_by_name(void **state)
{
	static const char *const bad[] = {
		"queues=0",
		"queues=65",
		"queues=-1",
		"queues=+1",
		"queues= 1",
		"queues=1 ",
		"queues=0x4",
		"queues=4x",
		"queues=99999999999999999999999",
		"queues=",
		"mac=",
		"mac=1",
		"mac=02:00:00:00:00",
		"mac=02:00:00:00:00:01:02",
		"mac=00:00:00:00:00:00",
		"mac=01:00:00:00:00:01",
		"mac=ff:ff:ff:ff:ff:ff",
		"mac=02:00:00:00:00:0g",
		"mtu=0",
		"mtu=67",
		"mtu=65536",
		"mtu=1500b",
		"port=",
		"port=Wire",
		"port=wire2",
		"port=loop",
		"port=gen",
		"port=ethdev",
		"ethdev=",
		"offloads=",
		"offloads=on",
		"offloads=offf",
		"rate-mbps=0",
		"rate-mbps=1000001",
		"rate-mbps=1.5",
		"rate-mbps=",
		"gen=13",
		"gen=65535",
		"gen=64k",
		"gen=",
		"idle=",
		"idle=no",
		"idle=Sleep",
		"doorbell=",
		"doorbell=yes",
		"doorbell=On",
		"lm=",
		"lm=on",
		"lm=shadows",
		"dma=",
		"dma=plain",
		"dma=bounce",
		"dma=direct,pool=1+1",
		"pool=,dma=bounce",
		"pool=1,dma=bounce",
		"pool=[1+2,2+1],dma=bounce",
		"poll-cpu=",
		"poll-cpu=x",
		"poll-cpu=-1",
		"poll-cpu=1024",
		"poll-cpu=[]",
		"poll-cpu=[1-]",
		"poll-cpu=[0-16]",
		"poll-cpu=[3-2]",
		"poll-cpu=[1,1]",
		"poll-cpu=[0-2,1]",
		"poll-cpu=[0,]",
		"poll-cpu=0-99999",
		"poll-cpu=[0]x",
		"poll-cpu=1023",
		"poll-cpu=[1022-1023]",
	};
	size_t i;

	(void)state;
	for (i = 0; i < DIM(bad); i++) {
		char key[32];

		snprintf(key, sizeof(key), "%.*s", (int)strcspn(bad[i], "="), bad[i]);
		refused(bad[i], key);
	}
}

static void
messages_tell_what_is_expected(void **state)
{
	(void)state;
	refused("queues=65", "1 to 64");
	refused("queues=65", "queues=65");
	refused("mtu=9", "68 to 65535");
	refused("mac=1", "unicast");
	refused("port=x", "loopback, wire, sink, ethdev or gen");
	refused("gen=1", "14 to 65534");
	refused("rate-mbps=0", "1 to 1000000");
	refused("idle=x", "busy or sleep");
	refused("offloads=x", "off, csum or all");
	refused("doorbell=x", "on or off");
	refused("inflight=", "directory");
	refused("inflight=/nonexistent", "/nonexistent/vdpa_vfn0.inflight cannot be opened");
	refused("lm=x", "hw, shadow or off");
	refused("dma=x", "direct, iommu or bounce");
	refused("dma=bounce", "\"dma=bounce\" needs \"pool\"");
	refused("pool=1+1,dma=iommu", "\"pool\" needs dma=bounce");
	refused("class=blk,mem=1M,pool=1+1", "\"pool\" needs dma=bounce");
	refused("pool=1+0,dma=bounce", "\"pool=1+0\": expected ADDR+LEN or a list such as");
	refused("vduse=x,pool=1+1,dma=bounce", "\"vduse\" excludes dma=bounce");
	refused("link=endpoint,path=/tmp/x,dma=bounce", "\"dma=bounce\" needs \"pool\"");
	refused("link=endpoint,path=/tmp/x,dma=iommu", "\"dma=iommu\" needs link=inproc");
	refused("link=ntb,path=/tmp/x,dma=iommu", "\"dma=iommu\" needs link=inproc");
	refused("poll-cpu=x", "CPU");
	/* with the device's name */
	refused("queues=65", "vdpa_vfn0");
}

static void
disks_have_arguments_of_their_own(void **state)
{
	static const char *const good[] = {
		"class=blk,mem=1M",
		"mem=4096,class=blk,queues=64,idle=sleep,lm=shadow",
		"class=blk,null=1T,block-size=4096,serial=01234567890123456789",
		"class=blk,mem=1M,readonly=on,cache=writethrough,iops=10K,bps=1G,rate-group=a",
		"class=blk,null=512,vduse=x,queues=2",
		"class=net",
	};
	struct rte_vdpa_device *dev;
	uint64_t features;
	unsigned int i;
	uint32_t n;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		accepted(good[i]);
	refused("class=scsi", "net or blk");
	refused("class=blk", "needs \"file\", \"mem\" or \"null\"");
	refused("mem=1M", "unknown device argument \"mem\", which needs class=blk");
	refused("class=blk,mem=1M,mtu=1500", "unknown device argument \"mtu\" of class=blk");
	refused("class=blk,mem=1M,null=1M", "and no other back-end");
	refused("class=blk,mem=0", "K, M, G or T");
	refused("class=blk,mem=1X", "K, M, G or T");
	refused("class=blk,mem=9999999999T", "K, M, G or T");
	refused("class=blk,mem=511", "less than a block of 512 bytes");
	refused("class=blk,mem=1M,queues=65", "1 to 64 queues");
	refused("class=blk,mem=1M,block-size=1000", "a power of two from 512 to 65536");
	refused("class=blk,mem=1M,cache=x", "writeback or writethrough");
	refused("class=blk,mem=1M,serial=012345678901234567890", "at most 20 characters");
	refused("class=blk,file=/nowhere", "file=/nowhere: No such file or directory");
	refused("class=blk,file=/dev/null", "neither a regular file nor a block device");
	refused("class=blk,mem=1M,vduse=x", "needs queues=2");
	refused("class=blk,link=endpoint,path=/nowhere,mem=1M", "\"mem\": with link=endpoint");
	refused("class=blk,link=endpoint,path=/nowhere,control=host", "is for class=net");

	assert_int_equal(rte_vdev_init("vdpa_vfn0", "class=blk,mem=1M,queues=3"), 0);
	dev = device("vdpa_vfn0");
	assert_int_equal(rte_vdpa_get_queue_num(dev, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(rte_vdpa_get_features(dev, &features), 0);
	assert_true(features & BIT(9)); /* VIRTIO_BLK_F_FLUSH */
	assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
}

static void
key_without_value_is_refused_by_name(void **state)
{
	(void)state;
	refused("queues", "queues");
	refused("mac", "mac");
	refused("mtu", "mtu");
	refused("port", "port");
	refused("peer,port=wire", "peer");
	refused("poll-cpu", "poll-cpu");
	refused("idle", "idle");
	refused("offloads", "offloads");
	refused("inflight", "inflight");
	refused("doorbell", "doorbell");
}

/* A store into memory wakes nobody: such a device says so, and offers none. */
static void
doorbells_are_offered_where_pollers_do_not_sleep(void **state)
{
	const uint64_t bits = BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |
		BIT(VHOST_USER_PROTOCOL_F_HOST_NOTIFIER);
	static const struct {
		const char *args;
		bool offered, told;
	} cases[] = {
		{"", false, false},
		{"doorbell=off", false, false},
		{"idle=sleep", false, false},
		{"doorbell=on", true, false},
		{"doorbell=on,idle=busy", true, false},
		{"doorbell=on,idle=sleep", false, true},
	};
	uint64_t protocol;
	size_t i;

	(void)state;
	for (i = 0; i < DIM(cases); i++) {
		logged();
		assert_int_equal(rte_vdev_init("vdpa_vfn0", cases[i].args), 0);
		assert_int_equal(rte_vdpa_get_protocol_features(device("vdpa_vfn0"), &protocol), 0);
		assert_true((protocol & bits) == (cases[i].offered ? bits : 0));
		assert_int_equal(
			strstr(logged(), "doorbell=on has no effect") != NULL, cases[i].told);
		assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
	}
}

static void
unknown_and_repeated_keys_are_refused_by_name(void **state)
{
	(void)state;
	refused("queue=4", "\"queue\"");
	refused("queues=4,foo=1", "\"foo\"");
	refused("Queues=4", "\"Queues\"");
	refused("foo", "\"foo\"");
	refused("queues=4,queues=4", "\"queues\"");
	refused("idle=sleep,queues=1,idle=busy", "\"idle\"");
	refused("poll-cpu=[0],poll-cpu=0", "\"poll-cpu\"");
}

static void
malformed_arguments_are_refused(void **state)
{
	char many[512] = "queues=1";
	int i;

	(void)state;
	refused("poll-cpu=[0", "poll-cpu=[0");
	refused("=4", "vdpa_vfn0");
	for (i = 0; i < 40; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many), ",k%d=1", i);
	refused(many, "vdpa_vfn0");
}

static void
peer_needs_a_wire_and_is_not_oneself(void **state)
{
	char args[128] = "port=wire,peer=";

	(void)state;
	refused("peer=vdpa_vfn1", "peer");
	refused("port=loopback,peer=vdpa_vfn1", "peer");
	refused("port=wire,peer=vdpa_vfn0", "peer");
	refused("port=wire,peer=", "peer");
	memset(args + strlen(args), 'n', 64);
	refused(args, "peer");
}

static void
generator_and_its_size_come_together(void **state)
{
	(void)state;
	refused("gen=64,port=sink", "\"gen\" needs port=gen");
	refused("port=loopback,gen=64", "\"gen\" needs port=gen");
	refused("port=gen", "\"port=gen\" needs \"gen\"");
	refused("gen=64,peer=vdpa_vfn1", "\"peer\" needs port=wire");
	refused("gen", "\"gen=\"");
}

static void
ethdev_selects_its_port_and_is_given_once(void **state)
{
	char args[128] = "ethdev=";

	(void)state;
	refused("ethdev=net_null0,port=wire", "\"ethdev\" needs port=ethdev");
	refused("ethdev=net_null0,gen=64", "needs port=");
	refused("port=ethdev", "\"port=ethdev\" needs \"ethdev\"");
	memset(args + strlen(args), 'n', 64);
	refused(args, "ethdev");
	/* a port that is not there yet is no error; one that another device has is */
	assert_int_equal(rte_vdev_init("vdpa_vfn1", "ethdev=net_null0"), 0);
	refused("ethdev=net_null0", "ethdev=net_null0: vdpa_vfn1 has that port already");
	accepted("ethdev=net_null1");
}

static void
name_that_is_too_long_is_refused(void **state)
{
	char name[80] = "vdpa_vfn";

	(void)state;
	memset(name + strlen(name), '1', 64);
	name[70] = '\0';
	assert_true(rte_vdev_init(name, "") != 0);
	assert_null(device(name));
}

/* ---- the registered device ---- */

static void
device_tells_pairs_and_features(void **state)
{
	struct rte_vdpa_device *dev;
	uint32_t pairs = 0;
	uint64_t features = 0, protocol = 0;

	(void)state;
	assert_int_equal(rte_vdev_init("vdpa_vfn0", "queues=7,mtu=9000"), 0);
	dev = device("vdpa_vfn0");
	assert_non_null(dev);
	assert_string_equal(rte_dev_name(rte_vdpa_get_rte_device(dev)), "vdpa_vfn0");
	assert_int_equal(rte_vdpa_get_queue_num(dev, &pairs), 0);
	assert_int_equal(pairs, 7);
	assert_int_equal(rte_vdpa_get_features(dev, &features), 0);
	assert_true(features & BIT(VIRTIO_F_VERSION_1));
	assert_true(features & BIT(VIRTIO_F_RING_PACKED));
	assert_true(features & BIT(VIRTIO_NET_F_MQ));
	assert_true(features & BIT(VIRTIO_NET_F_MTU));
	assert_true(features & BIT(VHOST_USER_F_PROTOCOL_FEATURES));
	/* vhost-user cannot carry it */
	assert_false(features & BIT(VIRTIO_F_RING_RESET));
	assert_int_equal(rte_vdpa_get_protocol_features(dev, &protocol), 0);
	assert_true(protocol & BIT(VHOST_USER_PROTOCOL_F_MQ));
	assert_true(protocol & BIT(VHOST_USER_PROTOCOL_F_CONFIG));
	/* no queue pairs more, no MTU: not offered */
	assert_int_equal(rte_vdev_init("vdpa_vfn1", ""), 0);
	assert_int_equal(rte_vdpa_get_features(device("vdpa_vfn1"), &features), 0);
	assert_false(features & (BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_MTU)));
}

/* Of a queue, and how often the function has failed. */
#define NB_STATS (VFN_NET_STAT_MAX + 1)

static void
statistics_have_names_and_a_range_of_queues(void **state)
{
	struct rte_vdpa_stat_name names[NB_STATS + 2];
	struct rte_vdpa_stat stats[NB_STATS + 2];
	struct rte_vdpa_device *dev;
	int n, i, j;

	(void)state;
	assert_int_equal(rte_vdev_init("vdpa_vfn0", "queues=2"), 0);
	dev = device("vdpa_vfn0");
	n = rte_vdpa_get_stats_names(dev, NULL, 0);
	assert_int_equal(n, NB_STATS);
	assert_int_equal(rte_vdpa_get_stats_names(dev, names, n), n);
	for (i = 0; i < n; i++) {
		assert_true(names[i].name[0] != '\0');
		for (j = 0; j < i; j++)
			assert_string_not_equal(names[i].name, names[j].name);
	}
	/* what the queue is for comes first */
	assert_string_equal(names[0].name, "packets");
	assert_string_equal(names[n - 2].name, "errors_segs");
	assert_string_equal(names[n - 1].name, "failures");
	for (i = 0; i <= 4; i++) {
		assert_int_equal(rte_vdpa_get_stats(dev, i, stats, n), n);
		for (j = 0; j < n; j++) {
			assert_int_equal(stats[j].id, j);
			assert_int_equal(stats[j].value, 0);
		}
		assert_int_equal(rte_vdpa_reset_stats(dev, i), 0);
	}
	/* fewer than there are; more than there are */
	stats[1].id = 4711;
	assert_int_equal(rte_vdpa_get_stats(dev, 0, stats, 1), 1);
	assert_int_equal(stats[1].id, 4711);
	assert_int_equal(rte_vdpa_get_stats(dev, 0, stats, n + 2), n);
	logged();
	assert_true(rte_vdpa_get_stats(dev, 5, stats, n) < 0);
	assert_non_null(strstr(logged(), "no queue 5"));
	assert_true(rte_vdpa_get_stats(dev, UINT16_MAX, stats, n) < 0);
	assert_true(rte_vdpa_reset_stats(dev, 5) < 0);
	assert_true(rte_vdpa_reset_stats(dev, UINT16_MAX) < 0);
}

static uint64_t
value(struct rte_vdpa_device *dev, unsigned int queue, unsigned int stat)
{
	struct rte_vdpa_stat stats[NB_STATS];
	unsigned int i;

	assert_int_equal(rte_vdpa_get_stats(dev, queue, stats, NB_STATS), NB_STATS);
	i = stat >= VFN_STAT_CLASS ? stat - VFN_STAT_CLASS :
				     stat + (VFN_NET_STAT_MAX - VFN_STAT_CLASS);
	return stats[i].value;
}

static void
statistics_start_from_zero_at_a_reset(void **state)
{
	static struct frame f;
	struct rte_vdpa_device *dev;
	unsigned int i, round;
	struct vfn_dev *found;
	struct guest *g;

	assert_int_equal(rte_vdev_init("vdpa_vfn0", ""), 0);
	dev = device("vdpa_vfn0");
	/* in librte_vhost's place */
	found = vfn_dev_get_by_vdpa(dev);
	assert_non_null(found);
	g = guest_open(&(struct guest_conf){.link = found->pci.link});
	vfn_dev_put(found);
	frame_make(&f, 1, 100);
	for (round = 1; round <= 3; round++) {
		rx_post(g, 0, round, 2048, 1);
		for (i = 0; i < round; i++)
			frame_passes(g, 1, g, 0, &f);
		for (i = 0; i < 2; i++) {
			assert_int_equal(value(dev, i, VFN_STAT_PACKETS), round);
			assert_int_equal(value(dev, i, VFN_STAT_BYTES), 100 * round);
		}
		assert_int_equal(rte_vdpa_reset_stats(dev, 0), 0);
		assert_int_equal(value(dev, 0, VFN_STAT_PACKETS), 0);
		/* that queue's only */
		assert_int_equal(value(dev, 1, VFN_STAT_BYTES), 100 * round);
		assert_int_equal(rte_vdpa_reset_stats(dev, 1), 0);
	}
	/* the function's own counters go on */
	assert_int_equal(stat_of(g, 0, VFN_STAT_PACKETS), 6);
	guests_close(state);
}

static void
removed_device_can_be_plugged_again(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 20; i++) {
		assert_int_equal(rte_eal_hotplug_add(
					 "vdev", "vdpa_vfn0", i & 1 ? "idle=sleep" : "queues=64"),
			0);
		assert_non_null(device("vdpa_vfn0"));
		assert_int_equal(rte_eal_hotplug_remove("vdev", "vdpa_vfn0"), 0);
		assert_null(device("vdpa_vfn0"));
	}
	assert_true(rte_eal_hotplug_remove("vdev", "vdpa_vfn0") < 0);
}

static void
name_can_be_used_once(void **state)
{
	(void)state;
	assert_int_equal(rte_vdev_init("vdpa_vfn0", "queues=3"), 0);
	assert_true(rte_vdev_init("vdpa_vfn0", "queues=2") < 0);
	assert_non_null(device("vdpa_vfn0"));
}

static void
wired_devices_take_one_peer_each(void **state)
{
	(void)state;
	assert_int_equal(rte_vdev_init("vdpa_vfn0", "port=wire"), 0);
	assert_int_equal(rte_vdev_init("vdpa_vfn1", "port=wire,peer=vdpa_vfn0"), 0);
	logged();
	assert_true(rte_vdev_init("vdpa_vfn2", "port=wire,peer=vdpa_vfn0") < 0);
	assert_non_null(strstr(logged(), "peer=vdpa_vfn0"));
	assert_null(device("vdpa_vfn2"));
	/* the end is free again when the other one went */
	assert_int_equal(rte_vdev_uninit("vdpa_vfn1"), 0);
	assert_int_equal(rte_vdev_init("vdpa_vfn2", "port=wire,peer=vdpa_vfn0"), 0);
}

/* Function and link are the same for everybody: look from a link of our own. */
static void
device_is_wired_to_the_peer_it_names(void **state)
{
	static struct frame f;
	struct guest *g;

	assert_int_equal(rte_vdev_init("vdpa_vfn0", "port=wire,peer=probe"), 0);
	g = guest_open(&(struct guest_conf){.name = "probe", .wiring = VFN_WIRING_WIRE});
	assert_int_equal(reg_get(g, &g->device, FIELD(struct virtio_net_config, status)),
		VIRTIO_NET_S_LINK_UP);
	/* nobody has set it up yet */
	frame_make(&f, 1, 100);
	tx_send(g, 1, &f);
	tx_wait(g, 1, 1);
	assert_int_equal(stat_of(g, 1, VFN_STAT_DROPPED_NO_PEER), 1);
	assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
	assert_int_equal(reg_get(g, &g->device, FIELD(struct virtio_net_config, status)), 0);
	guests_close(state);
}

static void
threads_come_and_go_with_the_device(void **state)
{
	unsigned int before = 0, during = 0, after = 0, *count[] = {&before, &during, &after}, i;
	struct dirent *e;
	char args[32];

	(void)state;
	snprintf(args, sizeof(args), "poll-cpu=%d", some_cpu);
	for (i = 0; i < 3; i++) {
		DIR *dir = opendir("/proc/self/task");

		while ((e = readdir(dir)) != NULL)
			(*count[i])++;
		closedir(dir);
		if (i == 0)
			assert_int_equal(rte_vdev_init("vdpa_vfn0", args), 0);
		if (i == 1)
			assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
	}
	/* the poller, and the watchdog of those who signal */
	assert_int_equal(during, before + 2);
	assert_int_equal(after, before);
}

static void
function_behind_an_endpoint_is_not_ours_to_configure(void **state)
{
	static const char *const keys[] = {"queues=2", "mac=02:00:00:00:00:01", "mtu=1500",
		"offloads=off", "port=sink", "peer=x", "ethdev=x", "gen=64", "rate-mbps=1",
		"poll-cpu=0", "idle=busy", "fault=no-log"};
	char args[96], what[32];
	unsigned int i;

	(void)state;
	refused("link=x", "inproc, endpoint or ntb");
	refused("link=ntb", "\"link=ntb\" needs \"path\"");
	refused("link=endpoint,path=/tmp/x,ntb-size=1", "\"ntb-size\" needs link=ntb");
	refused("link=ntb,path=/tmp/x,ntb-size=0", "1 to 4096");
	refused("link=endpoint,path=/tmp/x,ntb-latency=1", "\"ntb-latency\" needs link=ntb");
	refused("link=ntb,path=/tmp/x,ntb-latency=1000001", "0 to 1000000");
	refused("link=ntb,path=/tmp/x,lm=hw", "with link=ntb the function has no dirty log");
	refused("link=ntb,path=/tmp/x,port=sink", "\"port\": with link=ntb");
	refused("path=/tmp/x", "\"path\" needs link=endpoint");
	refused("control=host", "\"control\" needs link=endpoint");
	refused("link=inproc,path=/tmp/x", "\"path\" needs link=endpoint");
	refused("link=endpoint", "\"link=endpoint\" needs \"path\"");
	refused("link=endpoint,path=", "path");
	refused("link=endpoint,path=/tmp/x,control=x", "endpoint or host");
	refused("link=endpoint,path=/nonexistent/x", "endpoint /nonexistent/x: No such file");
	for (i = 0; i < DIM(keys); i++) {
		snprintf(args, sizeof(args), "link=endpoint,path=/nonexistent/x,%s", keys[i]);
		snprintf(what, sizeof(what), "\"%.*s\": with link=endpoint",
			(int)strcspn(keys[i], "="), keys[i]);
		refused(args, what);
		snprintf(args, sizeof(args), "control=host,link=endpoint,path=/nonexistent/x,%s",
			keys[i]);
		refused(args, i < 4 ? "No such file" : what);
	}
	accepted("link=inproc");
}

/* Only where it is asked for: not every front-end can do without. */
static void
platform_is_offered_where_a_mode_is_given(void **state)
{
	static const char *const args[] = {"dma=direct", "dma=iommu", "class=blk,mem=1M,dma=direct",
		"dma=bounce,pool=1+1", "", "class=blk,mem=1M"};
	uint64_t features;
	unsigned int i;

	(void)state;
	for (i = 0; i < DIM(args); i++) {
		assert_int_equal(rte_vdev_init("vdpa_vfn0", args[i]), 0);
		assert_int_equal(rte_vdpa_get_features(device("vdpa_vfn0"), &features), 0);
		features |= rte_vdpa_vfn_features("vdpa_vfn0");
		assert_int_equal((features & BIT(VIRTIO_F_ACCESS_PLATFORM)) != 0, i < 4);
		assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
	}
}

static unsigned int
count(const char *what)
{
	DIR *dir = opendir(what);
	unsigned int n = 0;

	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

/* The device's state by its operator's eyes: librte_vhost asks it. */
static void
endpoint_is_gone_and_comes_back(void **state)
{
	struct guest_conf conf = {.name = "far", .pairs = 2};
	unsigned int fds = 0, threads = 0, i;
	struct vfn_endpoint *endpoint;
	struct vfn_function *fn;
	struct vfn_link *link;
	struct vfn_dev *dev;
	char path[64], args[96];
	uint64_t features, end;
	uint32_t queues;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/vfn-args-%d", getpid());
	snprintf(args, sizeof(args), "link=endpoint,path=%s", path);
	assert_int_equal(function_open(&conf, &fn, &link), 0);
	for (i = 0; i < 5; i++) {
		endpoint = endpoint_serve(link, path);
		assert_int_equal(rte_vdev_init("vdpa_vfn0", args), 0);
		assert_int_equal(rte_vdpa_get_queue_num(device("vdpa_vfn0"), &queues), 0);
		assert_int_equal(queues, 2);
		assert_int_equal(rte_vdpa_get_features(device("vdpa_vfn0"), &features), 0);
		assert_true(features & BIT(VIRTIO_NET_F_MQ));
		vfn_endpoint_close(endpoint);
		unlink(path);
		dev = vfn_dev_get_by_vdpa(device("vdpa_vfn0"));
		for (end = now_ms() + PATIENCE_MS; dev->state != VFN_FAILED && now_ms() < end;)
			nap_us(1000);
		assert_true(vfn_remote_gone(dev));
		/* what is known stays */
		assert_int_equal(rte_vdpa_get_queue_num(device("vdpa_vfn0"), &queues), 0);
		if (i % 2) {
			endpoint = endpoint_serve(link, path);
			for (end = now_ms() + PATIENCE_MS;
				dev->state != VFN_IDLE && now_ms() < end;)
				nap_us(1000);
			assert_false(vfn_remote_gone(dev));
		}
		vfn_dev_put(dev);
		assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
		if (i % 2)
			vfn_endpoint_close(endpoint);
		unlink(path);
		if (i == 0) {
			fds = count("/proc/self/fd");
			threads = count("/proc/self/task");
		}
	}
	/* now and then one is still open for a moment; a leak stays */
	for (end = now_ms() + PATIENCE_MS; count("/proc/self/fd") != fds && now_ms() < end;)
		nap_us(1000);
	assert_int_equal(count("/proc/self/fd"), fds);
	assert_int_equal(count("/proc/self/task"), threads);
	link->ops->close(link);
}

/* The same at the other side of a bridge, whoever has control. */
static void
bridge_is_gone_and_comes_back(void **state)
{
	struct guest_conf conf = {.name = "far", .pairs = 2};
	struct ntb_sim_params bridge = {.name = "far", .bus = VFN_NTB_DEVICE_BUS, .size = 1 << 20};
	struct vfn_ntb_server_params params = {.name = "far", .offer = vfn_manage_net_offer};
	struct vfn_ntb_server *server;
	struct vfn_function *fn;
	struct vfn_link *link;
	struct vfn_dev *dev;
	char path[64], args[160], why[128];
	uint64_t end;
	uint32_t queues;
	unsigned int i;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/vfn-args-%d", getpid());
	bridge.path = path;
	assert_int_equal(function_open(&conf, &fn, &link), 0);
	assert_int_equal(ntb_sim_open(&bridge, &params.ntb, why, sizeof(why)), 0);
	for (i = 0; i < 2; i++) {
		snprintf(args, sizeof(args), "link=ntb,path=%s,ntb-size=1%s", path,
			i ? ",control=host,queues=1,mac=02:00:00:00:00:07" : "");
		assert_int_equal(vfn_ntb_serve(link, fn, &params, &server), 0);
		assert_int_equal(rte_vdev_init("vdpa_vfn0", args), 0);
		assert_int_equal(rte_vdpa_get_queue_num(device("vdpa_vfn0"), &queues), 0);
		assert_int_equal(queues, i ? 1 : 2);
		dev = vfn_dev_get_by_vdpa(device("vdpa_vfn0"));
		vfn_ntb_server_close(server);
		for (end = now_ms() + PATIENCE_MS; dev->state != VFN_FAILED && now_ms() < end;)
			nap_us(1000);
		assert_true(vfn_remote_gone(dev));
		assert_int_equal(vfn_ntb_serve(link, fn, &params, &server), 0);
		for (end = now_ms() + PATIENCE_MS; dev->state != VFN_IDLE && now_ms() < end;)
			nap_us(1000);
		assert_false(vfn_remote_gone(dev));
		vfn_dev_put(dev);
		assert_int_equal(rte_vdev_uninit("vdpa_vfn0"), 0);
		vfn_ntb_server_close(server);
	}
	/* Where the far side's operator decides. */
	params.offer = NULL;
	assert_int_equal(vfn_ntb_serve(link, fn, &params, &server), 0);
	refused(args, "not control=host there");
	vfn_ntb_server_close(server);
	ntb_close(params.ntb);
	link->ops->close(link);
}

int
main(void)
{
#define TEST(test) cmocka_unit_test_teardown(test, remove_all)
	const struct CMUnitTest tests[] = {
		TEST(each_argument_takes_its_values),
		TEST(values_that_are_none_are_refused_by_name),
		TEST(messages_tell_what_is_expected),
		TEST(disks_have_arguments_of_their_own),
		TEST(key_without_value_is_refused_by_name),
		TEST(doorbells_are_offered_where_pollers_do_not_sleep),
		TEST(unknown_and_repeated_keys_are_refused_by_name),
		TEST(malformed_arguments_are_refused),
		TEST(peer_needs_a_wire_and_is_not_oneself),
		TEST(generator_and_its_size_come_together),
		TEST(ethdev_selects_its_port_and_is_given_once),
		TEST(name_that_is_too_long_is_refused),
		TEST(device_tells_pairs_and_features),
		TEST(statistics_have_names_and_a_range_of_queues),
		TEST(statistics_start_from_zero_at_a_reset),
		TEST(removed_device_can_be_plugged_again),
		TEST(name_can_be_used_once),
		TEST(wired_devices_take_one_peer_each),
		TEST(device_is_wired_to_the_peer_it_names),
		TEST(platform_is_offered_where_a_mode_is_given),
		TEST(threads_come_and_go_with_the_device),
		TEST(function_behind_an_endpoint_is_not_ours_to_configure),
		TEST(endpoint_is_gone_and_comes_back),
		TEST(bridge_is_gone_and_comes_back),
	};
#undef TEST
	cpu_set_t cpus;
	int ret;

	sched_getaffinity(0, sizeof(cpus), &cpus);
	while (!CPU_ISSET(some_cpu, &cpus))
		some_cpu++;
	log_file = tmpfile();
	if (log_file == NULL || fn_eal_init(NULL) < 0)
		return 1;
	rte_openlog_stream(log_file);
	ret = run_list("args", tests, DIM(tests), NULL, 0);
	rte_openlog_stream(stderr);
	fclose(log_file);
	/* with devices that are still there: EAL takes them away */
	if (rte_vdev_init("vdpa_vfn0", "queues=2") != 0 || rte_eal_cleanup() != 0)
		return 1;
	return ret;
}
