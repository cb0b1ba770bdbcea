/* SPDX-License-Identifier: BSD-3-Clause */

/*
 * Do our declarations of the driver SDK fit the libdpdk that is installed? EAL runs inside; each
 * test plugs a virtual device and looks at it through our structures and through the public API.
 *
 * The linker sends the accessors that vfn_sdk_check() calls through the __wrap_ functions below
 * (see meson.build), so that a library with another layout can be played.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <rte_bus.h>
#include <rte_eal.h>
#include <rte_log.h>
#include <rte_malloc.h>

#include <vfn_sdk.h>

#define DEV_NAME "vdpa_sdk_test0"
#define DEV_ARGS "queues=4,idle=sleep"
#define NODE	 3

/* ---- a library whose layout differs in one field ---- */

static const char *lie_about;
static int elsewhere;

#define WRAP(type, func, arg, field) \
	type __real_##func(const arg *obj); \
	type __wrap_##func(const arg *obj); \
	type __wrap_##func(const arg *obj) \
	{ \
		if (lie_about != NULL && strcmp(lie_about, field) == 0) \
			return (type)(uintptr_t)&elsewhere; \
		return __real_##func(obj); \
	}

WRAP(const char *, rte_dev_name, struct rte_device, "name")
WRAP(const char *, rte_dev_bus_info, struct rte_device, "bus_info")
WRAP(const struct rte_devargs *, rte_dev_devargs, struct rte_device, "devargs")
WRAP(const struct rte_bus *, rte_dev_bus, struct rte_device, "bus")
WRAP(const struct rte_driver *, rte_dev_driver, struct rte_device, "driver")
WRAP(const char *, rte_driver_name, struct rte_driver, "driver.name")

int __real_rte_dev_numa_node(const struct rte_device *dev);
int __wrap_rte_dev_numa_node(const struct rte_device *dev);
int
__wrap_rte_dev_numa_node(const struct rte_device *dev)
{
	const bool lie = lie_about != NULL && strcmp(lie_about, "numa_node") == 0;

	return __real_rte_dev_numa_node(dev) + lie;
}

/* ---- the driver ---- */

static struct rte_vdev_device *probed;
static int check_in_probe;
static int removals;
static void *dma_mapped;

static int
sdk_test_probe(struct rte_vdev_device *vdev)
{
	check_in_probe = vfn_sdk_check(vdev);
	if (check_in_probe != 0)
		return check_in_probe;
	vdev->device.numa_node = NODE;
	probed = vdev;
	return 0;
}

static int
sdk_test_remove(struct rte_vdev_device *vdev)
{
	assert_ptr_equal(vdev, probed);
	probed = NULL;
	removals++;
	return 0;
}

static int
sdk_test_dma_map(struct rte_vdev_device *vdev, void *addr, uint64_t iova, size_t len)
{
	assert_ptr_equal(vdev, probed);
	assert_true(iova == 0x1000 && len == 4096);
	dma_mapped = addr;
	return 201;
}

static int
sdk_test_dma_unmap(struct rte_vdev_device *vdev, void *addr, uint64_t iova, size_t len)
{
	assert_ptr_equal(vdev, probed);
	assert_true(iova == 0x1000 && len == 4096);
	assert_ptr_equal(addr, dma_mapped);
	dma_mapped = NULL;
	return 202;
}

static struct rte_vdev_driver sdk_test_driver = {
	.probe = sdk_test_probe,
	.remove = sdk_test_remove,
	.dma_map = sdk_test_dma_map,
	.dma_unmap = sdk_test_dma_unmap,
};

RTE_PMD_REGISTER_VDEV(vdpa_sdk_test, sdk_test_driver);
RTE_PMD_REGISTER_ALIAS(vdpa_sdk_test, vdpa_sdk_alias);
RTE_PMD_REGISTER_PARAM_STRING(vdpa_sdk_test, "queues=<n> idle=<poll|sleep>");

static int
plug(void **state)
{
	(void)state;
	lie_about = NULL;
	probed = NULL;
	return rte_eal_hotplug_add("vdev", DEV_NAME, DEV_ARGS);
}

static int
unplug(void **state)
{
	(void)state;
	lie_about = NULL;
	return probed != NULL ? rte_eal_hotplug_remove("vdev", DEV_NAME) : 0;
}

/* Run vfn_sdk_check() and keep what it logs. */
static int
check_logged(const struct rte_vdev_device *vdev, char *text, size_t size)
{
	FILE *log = tmpfile();
	size_t len;
	int ret;

	assert_non_null(log);
	rte_openlog_stream(log);
	ret = vfn_sdk_check(vdev);
	rte_openlog_stream(stderr);
	rewind(log);
	len = fread(text, 1, size - 1, log);
	text[len] = '\0';
	fclose(log);
	return ret;
}

/* ---- layout ---- */

static void
fields_agree_with_the_public_accessors(void **state)
{
	const struct rte_device *dev;

	(void)state;
	assert_non_null(probed);
	assert_int_equal(check_in_probe, 0);
	dev = &probed->device;

	assert_string_equal(dev->name, DEV_NAME);
	assert_ptr_equal(dev->name, rte_dev_name(dev));
	assert_string_equal(rte_vdev_device_name(probed), DEV_NAME);

	assert_non_null(dev->devargs);
	assert_ptr_equal(dev->devargs, rte_dev_devargs(dev));
	assert_string_equal(dev->devargs->name, DEV_NAME);
	assert_string_equal(rte_vdev_device_args(probed), DEV_ARGS);

	assert_ptr_equal(dev->bus, rte_bus_find_by_name("vdev"));
	assert_string_equal(rte_bus_name(rte_dev_bus(dev)), "vdev");

	/* written by the probe function through our field */
	assert_int_equal(rte_dev_numa_node(dev), NODE);

	/* written by the bus into its own field */
	assert_ptr_equal(dev->driver, &sdk_test_driver.driver);
	assert_ptr_equal(rte_dev_driver(dev), &sdk_test_driver.driver);
	assert_string_equal(rte_driver_name(dev->driver), "vdpa_sdk_test");
	assert_string_equal(dev->driver->alias, "vdpa_sdk_alias");
	assert_true(rte_dev_is_probed(dev));

	assert_ptr_equal(RTE_DEV_TO_VDEV(&probed->device), probed);
	assert_int_equal(vfn_sdk_check(probed), 0);
}

/* bus_info is NULL on the virtual bus: only a value of ours shows where the library reads it. */
static void
bus_info_is_where_the_library_reads_it(void **state)
{
	struct rte_vdev_device copy = *probed;

	(void)state;
	copy.device.bus_info = "on a copy";
	assert_string_equal(rte_dev_bus_info(&copy.device), "on a copy");
}

static void
iterating_the_bus_finds_our_device(void **state)
{
	struct rte_dev_iterator it;
	struct rte_device *dev;
	int found = 0;

	(void)state;
	RTE_DEV_FOREACH(dev, "bus=vdev,name=" DEV_NAME, &it) {
		assert_ptr_equal(dev, &probed->device);
		found++;
	}
	assert_int_equal(found, 1);
}

/* ---- vfn_sdk_check() ---- */

static void
check_names_each_field_that_differs(void **state)
{
	static const char *const fields[] = {
		"bus", "name", "devargs", "driver", "bus_info", "numa_node"};
	char text[2048], expected[64];
	size_t i, j;

	(void)state;
	for (i = 0; i < RTE_DIM(fields); i++) {
		lie_about = fields[i];
		assert_int_equal(check_logged(probed, text, sizeof(text)), -EPROTO);
		for (j = 0; j < RTE_DIM(fields); j++) {
			snprintf(expected, sizeof(expected), "rte_device.%s is not", fields[j]);
			assert_int_equal(strstr(text, expected) != NULL, i == j);
		}
	}
	lie_about = "driver.name";
	assert_int_equal(check_logged(probed, text, sizeof(text)), -EPROTO);
	assert_non_null(strstr(text, "rte_device.driver is not"));
	lie_about = NULL;
	assert_int_equal(check_logged(probed, text, sizeof(text)), 0);
	assert_string_equal(text, "");
}

static void
check_refuses_a_copy_on_another_bus(void **state)
{
	struct rte_vdev_device copy = *probed;
	char text[2048];

	(void)state;
	assert_int_equal(check_logged(&copy, text, sizeof(text)), 0);
	copy.device.bus = (const struct rte_bus *)&elsewhere;
	assert_int_equal(check_logged(&copy, text, sizeof(text)), -EPROTO);
	assert_non_null(strstr(text, "rte_device.bus is not"));
}

/* 26.07 has no list link before the generic device: both sides read the same wrong words. */
static void
check_refuses_a_device_at_another_offset(void **state)
{
	union {
		struct rte_vdev_device vdev;
		struct rte_device device;
	} other;
	char text[2048];

	(void)state;
	memset(&other, 0, sizeof(other));
	other.device = probed->device;
	assert_int_equal(check_logged(&other.vdev, text, sizeof(text)), -EPROTO);
	assert_non_null(strstr(text, "rte_device.bus is not"));
}

static void
check_failing_in_probe_leaves_the_device_alone(void **state)
{
	(void)state;
	assert_int_equal(rte_eal_hotplug_remove("vdev", DEV_NAME), 0);
	lie_about = "devargs";
	assert_int_not_equal(rte_eal_hotplug_add("vdev", DEV_NAME, DEV_ARGS), 0);
	assert_int_equal(check_in_probe, -EPROTO);
	assert_null(probed);
}

/* ---- drivers come and go ---- */

static void
removal_reaches_the_driver_once(void **state)
{
	(void)state;
	removals = 0;
	assert_int_equal(rte_eal_hotplug_remove("vdev", DEV_NAME), 0);
	assert_int_equal(removals, 1);
	assert_null(probed);
}

static void
vdev_init_and_uninit_use_probe_and_remove(void **state)
{
	(void)state;
	removals = 0;
	assert_int_equal(rte_vdev_init("vdpa_sdk_test1", NULL), 0);
	assert_string_equal(rte_vdev_device_name(probed), "vdpa_sdk_test1");
	assert_string_equal(rte_vdev_device_args(probed), "");
	assert_int_equal(rte_vdev_uninit("vdpa_sdk_test1"), 0);
	assert_int_equal(removals, 1);
}

static void
unregistered_driver_gets_no_device(void **state)
{
	(void)state;
	rte_vdev_unregister(&sdk_test_driver);
	assert_int_not_equal(rte_vdev_init("vdpa_sdk_test2", NULL), 0);
	assert_null(probed);
	rte_vdev_register(&sdk_test_driver);
	assert_int_equal(rte_vdev_init("vdpa_sdk_alias2", NULL), 0);
	assert_int_equal(rte_vdev_uninit("vdpa_sdk_alias2"), 0);
}

static void
dma_calls_reach_the_driver(void **state)
{
	void *addr = rte_malloc(NULL, 4096, 4096);

	(void)state;
	assert_non_null(addr);
	dma_mapped = NULL;
	assert_int_equal(rte_dev_dma_map(&probed->device, addr, 0x1000, 4096), 201);
	assert_ptr_equal(dma_mapped, addr);
	assert_int_equal(rte_dev_dma_unmap(&probed->device, addr, 0x1000, 4096), 202);
	assert_null(dma_mapped);
	rte_free(addr);
}

/* ---- vDPA ---- */

static struct rte_vdpa_device *op_dev;
static int op_qid;
static unsigned int op_count;

static int
op_get_queue_num(struct rte_vdpa_device *dev, uint32_t *queue_num)
{
	op_dev = dev;
	*queue_num = 11;
	return 101;
}

static int
op_get_features(struct rte_vdpa_device *dev, uint64_t *features)
{
	op_dev = dev;
	*features = UINT64_C(0x2222222222222222);
	return 102;
}

static int
op_get_protocol_features(struct rte_vdpa_device *dev, uint64_t *features)
{
	op_dev = dev;
	*features = UINT64_C(0x3333333333333333);
	return 103;
}

static int
op_get_stats_names(struct rte_vdpa_device *dev, struct rte_vdpa_stat_name *names, unsigned int size)
{
	op_dev = dev;
	op_count = size;
	snprintf(names[1].name, sizeof(names[1].name), "second");
	return 104;
}

static int
op_get_stats(struct rte_vdpa_device *dev, int qid, struct rte_vdpa_stat *stats, unsigned int n)
{
	op_dev = dev;
	op_qid = qid;
	op_count = n;
	stats[1].id = 1;
	stats[1].value = 5555;
	return 105;
}

static int
op_reset_stats(struct rte_vdpa_device *dev, int qid)
{
	op_dev = dev;
	op_qid = qid;
	return 106;
}

static int
op_get_dev_type(struct rte_vdpa_device *dev, uint32_t *type)
{
	op_dev = dev;
	*type = 77;
	return 0;
}

/* Ops that need a vhost-user client to be called; here only their slots matter. */
static int
op_vid(int vid)
{
	(void)vid;
	fail();
	return -1;
}

static int
op_vring_state(int vid, int vring, int state)
{
	(void)vring;
	(void)state;
	return op_vid(vid);
}

static const struct rte_vdpa_dev_ops all_ops = {
	.get_queue_num = op_get_queue_num,
	.get_features = op_get_features,
	.get_protocol_features = op_get_protocol_features,
	.dev_conf = op_vid,
	.dev_close = op_vid,
	.set_vring_state = op_vring_state,
	.set_features = op_vid,
	.get_stats_names = op_get_stats_names,
	.get_stats = op_get_stats,
	.reset_stats = op_reset_stats,
	.get_dev_type = op_get_dev_type,
};

static void
vdpa_device_is_found_until_unregistered(void **state)
{
	struct rte_vdpa_dev_ops ops = all_ops;
	struct rte_vdpa_device *vdpa;

	(void)state;
	assert_null(rte_vdpa_find_device_by_name(DEV_NAME));
	vdpa = rte_vdpa_register_device(&probed->device, &ops);
	assert_non_null(vdpa);
	assert_ptr_equal(rte_vdpa_find_device_by_name(DEV_NAME), vdpa);
	assert_ptr_equal(rte_vdpa_get_rte_device(vdpa), &probed->device);
	assert_null(rte_vdpa_register_device(&probed->device, &ops));

	assert_int_equal(rte_vdpa_unregister_device(vdpa), 0);
	assert_null(rte_vdpa_find_device_by_name(DEV_NAME));
	assert_int_equal(rte_vdpa_unregister_device(vdpa), -1);
}

static void
public_vdpa_calls_reach_their_ops(void **state)
{
	struct rte_vdpa_dev_ops ops = all_ops;
	struct rte_vdpa_device *vdpa = rte_vdpa_register_device(&probed->device, &ops);
	struct rte_vdpa_stat_name names[2];
	struct rte_vdpa_stat stats[2];
	uint32_t queue_num = 0;
	uint64_t bits = 0;

	(void)state;
	assert_non_null(vdpa);

	op_dev = NULL;
	assert_int_equal(rte_vdpa_get_queue_num(vdpa, &queue_num), 101);
	assert_int_equal(queue_num, 11);
	assert_ptr_equal(op_dev, vdpa);

	assert_int_equal(rte_vdpa_get_features(vdpa, &bits), 102);
	assert_true(bits == UINT64_C(0x2222222222222222));
	assert_int_equal(rte_vdpa_get_protocol_features(vdpa, &bits), 103);
	assert_true(bits == UINT64_C(0x3333333333333333));

	assert_int_equal(rte_vdpa_get_stats_names(vdpa, names, 2), 104);
	assert_int_equal(op_count, 2);
	assert_string_equal(names[1].name, "second");

	op_count = 0;
	assert_int_equal(rte_vdpa_get_stats(vdpa, 6, stats, 2), 105);
	assert_int_equal(op_qid, 6);
	assert_int_equal(op_count, 2);
	assert_true(stats[1].value == 5555);

	assert_int_equal(rte_vdpa_reset_stats(vdpa, 9), 106);
	assert_int_equal(op_qid, 9);

	assert_int_equal(rte_vdpa_unregister_device(vdpa), 0);
}

static void
device_type_op_is_asked_when_a_socket_asks(void **state)
{
	struct rte_vdpa_dev_ops ops = all_ops;
	struct rte_vdpa_device *vdpa;
	char path[64];
	uint32_t type = 0;

	(void)state;
	op_dev = NULL;
	vdpa = rte_vdpa_register_device(&probed->device, &ops);
	assert_non_null(vdpa);
	assert_ptr_equal(op_dev, vdpa);

	/* registered but not started: no file is made */
	snprintf(path, sizeof(path), "vfn-test-sdk-%d.sock", (int)getpid());
	assert_int_equal(rte_vhost_driver_register(path, 0), 0);
	assert_int_equal(rte_vhost_driver_attach_vdpa_device(path, vdpa), 0);
	assert_ptr_equal(rte_vhost_driver_get_vdpa_device(path), vdpa);
	assert_int_equal(rte_vhost_driver_get_vdpa_dev_type(path, &type), 0);
	assert_int_equal(type, 77);
	assert_int_equal(rte_vhost_driver_unregister(path), 0);
	assert_int_equal(rte_vdpa_unregister_device(vdpa), 0);
}

/* The library refuses a table with a required op missing: it must mean the same slots as we do. */
static void
required_ops_are_the_librarys(void **state)
{
	static const size_t required[] = {
		offsetof(struct rte_vdpa_dev_ops, get_queue_num),
		offsetof(struct rte_vdpa_dev_ops, get_features),
		offsetof(struct rte_vdpa_dev_ops, get_protocol_features),
		offsetof(struct rte_vdpa_dev_ops, dev_conf),
		offsetof(struct rte_vdpa_dev_ops, dev_close),
		offsetof(struct rte_vdpa_dev_ops, set_vring_state),
		offsetof(struct rte_vdpa_dev_ops, set_features),
	};
	struct rte_vdpa_device *vdpa;
	size_t slot, i;

	(void)state;
	for (slot = 0; slot < sizeof(all_ops); slot += sizeof(void *)) {
		struct rte_vdpa_dev_ops ops = all_ops;
		int is_required = 0;

		for (i = 0; i < RTE_DIM(required); i++)
			is_required |= required[i] == slot;
		memset((char *)&ops + slot, 0, sizeof(void *));
		vdpa = rte_vdpa_register_device(&probed->device, &ops);
		assert_int_equal(vdpa == NULL, is_required);
		if (vdpa != NULL)
			assert_int_equal(rte_vdpa_unregister_device(vdpa), 0);
	}
}

/* Without a connection these must fail, not crash: enough to see that they link. */
static void
vid_calls_fail_without_a_connection(void **state)
{
	char ring[64];

	(void)state;
	assert_int_equal(rte_vdpa_relay_vring_used(0, 0, ring), -1);
	assert_true(rte_vhost_host_notifier_ctrl(0, RTE_VHOST_QUEUE_ALL, true) < 0);
}

static int
start_eal(void **state)
{
	static char args[][16] = {"test_sdk", "--no-huge", "-m", "64", "--no-pci", "--no-shconf",
		"--no-telemetry", "--iova-mode=va"};
	static char *argv[RTE_DIM(args) + 1];
	size_t i;

	(void)state;
	for (i = 0; i < RTE_DIM(args); i++)
		argv[i] = args[i];
	/* the log's default is standard output, where the test protocol goes */
	rte_openlog_stream(stderr);
	return rte_eal_init(RTE_DIM(args), argv) < 0;
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
#define PLUGGED(test) cmocka_unit_test_setup_teardown(test, plug, unplug)
		PLUGGED(fields_agree_with_the_public_accessors),
		PLUGGED(bus_info_is_where_the_library_reads_it),
		PLUGGED(iterating_the_bus_finds_our_device),
		PLUGGED(check_names_each_field_that_differs),
		PLUGGED(check_refuses_a_copy_on_another_bus),
		PLUGGED(check_refuses_a_device_at_another_offset),
		PLUGGED(check_failing_in_probe_leaves_the_device_alone),
		PLUGGED(removal_reaches_the_driver_once),
		cmocka_unit_test(vdev_init_and_uninit_use_probe_and_remove),
		cmocka_unit_test(unregistered_driver_gets_no_device),
		PLUGGED(dma_calls_reach_the_driver),
		PLUGGED(vdpa_device_is_found_until_unregistered),
		PLUGGED(public_vdpa_calls_reach_their_ops),
		PLUGGED(device_type_op_is_asked_when_a_socket_asks),
		PLUGGED(required_ops_are_the_librarys),
		PLUGGED(vid_calls_fail_without_a_connection),
#undef PLUGGED
	};

	return cmocka_run_group_tests_name("driver SDK", tests, start_eal, stop_eal);
}
