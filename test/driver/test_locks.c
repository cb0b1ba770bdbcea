/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The list of devices and the order of locks: who looks a device up waits for nobody, a device
 * that is used is not removed, one that is being removed takes no connection, and locks that are
 * taken out of order are told.
 */

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include <rte_bus_vdev.h>
#include <rte_log.h>
#include <rte_vdpa.h>

#include "fn_harness.h"
#include "vfn_drv.h"

#define NAME "vdpa_vfn0"

static struct vfn_dev *
device_new(void)
{
	struct vfn_dev *dev;

	assert_int_equal(rte_vdev_init(NAME, ""), 0);
	dev = vfn_dev_get_by_vdpa(rte_vdpa_find_device_by_name(NAME));
	assert_non_null(dev);
	return dev;
}

struct asker {
	pthread_t thread;
	struct rte_vdpa_device *vdpa;
	bool runs, done;
};

/* Telemetry. */
static void *
ask_by_name(void *arg)
{
	struct asker *a = arg;
	struct vfn_dev *dev;

	__atomic_store_n(&a->runs, true, __ATOMIC_RELEASE);
	dev = vfn_dev_lock_by_name(NAME);
	if (dev != NULL)
		vfn_dev_release(dev);
	__atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* The doorbells' thread, and everything that asks for the features. */
static void *
look_up(void *arg)
{
	struct asker *a = arg;
	struct vfn_dev *dev = vfn_dev_get_by_vdpa(a->vdpa);
	uint64_t features;

	if (dev != NULL)
		vfn_dev_put(dev);
	vfn_notify_lock();
	vfn_notify_unlock();
	if (rte_vdpa_get_features(a->vdpa, &features) == 0)
		__atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool
comes_true(const bool *flag, unsigned int ms)
{
	uint64_t end = now_ms() + ms;

	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE) && now_ms() < end)
		nap_us(200);
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void
look_up_does_not_wait_for_a_device(void **state)
{
	struct vfn_dev *dev = device_new();
	struct asker telemetry = {0}, doorbells = {.vdpa = dev->vdpa};

	(void)state;
	/* the message thread, which waits for the doorbells' */
	vfn_dev_lock(dev);
	pthread_create(&telemetry.thread, NULL, ask_by_name, &telemetry);
	assert_true(comes_true(&telemetry.runs, PATIENCE_MS));
	nap_us(20000);
	assert_false(telemetry.done);
	pthread_create(&doorbells.thread, NULL, look_up, &doorbells);
	assert_true(comes_true(&doorbells.done, PATIENCE_MS));
	vfn_dev_release(dev);
	pthread_join(doorbells.thread, NULL);
	pthread_join(telemetry.thread, NULL);
	assert_true(telemetry.done);
	assert_int_equal(rte_vdev_uninit(NAME), 0);
}

static void *
remove_it(void *arg)
{
	struct asker *a = arg;

	__atomic_store_n(&a->runs, true, __ATOMIC_RELEASE);
	if (rte_vdev_uninit(NAME) == 0)
		__atomic_store_n(&a->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static void
removing_waits_for_users_and_takes_no_connection(void **state)
{
	struct vfn_dev *dev = device_new();
	struct asker a = {0};
	bool removed = false;
	uint64_t end = now_ms() + PATIENCE_MS;

	(void)state;
	pthread_create(&a.thread, NULL, remove_it, &a);
	while (!removed && now_ms() < end) {
		vfn_dev_lock(dev);
		removed = dev->removed;
		vfn_dev_unlock(dev);
	}
	assert_true(removed);
	nap_us(20000);
	assert_false(__atomic_load_n(&a.done, __ATOMIC_ACQUIRE));
	/* what the device consists of is there for who uses it */
	assert_ptr_equal(rte_vdpa_find_device_by_name(NAME), dev->vdpa);
	vfn_dev_lock(dev);
	assert_int_equal(vfn_life_connection(dev, 0), -ENODEV);
	vfn_dev_release(dev);
	pthread_join(a.thread, NULL);
	assert_true(a.done);
}

static void
every_device_is_found_once(void **state)
{
	struct vfn_dev *dev = NULL;
	unsigned int n;
	char name[32];

	(void)state;
	for (n = 0; n < 3; n++) {
		snprintf(name, sizeof(name), "vdpa_vfn%u", n);
		assert_int_equal(rte_vdev_init(name, ""), 0);
	}
	for (n = 0; (dev = vfn_dev_get_next(dev)) != NULL; n++) {
		snprintf(name, sizeof(name), "vdpa_vfn%u", n);
		assert_string_equal(dev->name, name);
	}
	assert_int_equal(n, 3);
	while (n-- > 0) {
		snprintf(name, sizeof(name), "vdpa_vfn%u", n);
		assert_int_equal(rte_vdev_uninit(name), 0);
	}
}

/* Last: it is told once. */
static void
locks_out_of_order_are_told(void **state)
{
	struct vfn_dev *dev = device_new();
	char text[4096] = "";
	FILE *log = fmemopen(text, sizeof(text) - 1, "w");

	(void)state;
	assert_non_null(log);
	setbuf(log, NULL);
	rte_openlog_stream(log);
	vfn_dev_lock(dev);
	vfn_notify_lock();
	vfn_notify_unlock();
	vfn_dev_unlock(dev);
	assert_null(strstr(text, "lock order"));
	vfn_notify_lock();
	vfn_dev_lock(dev);
	vfn_dev_unlock(dev);
	vfn_notify_unlock();
	rte_openlog_stream(NULL);
	fclose(log);
	assert_non_null(strstr(text, "lock order: 0 is taken while 0x2 are held"));
	vfn_dev_put(dev);
	assert_int_equal(rte_vdev_uninit(NAME), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(look_up_does_not_wait_for_a_device),
		PLAIN(removing_waits_for_users_and_takes_no_connection),
		PLAIN(every_device_is_found_once),
		PLAIN(locks_out_of_order_are_told),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("locks", tests, DIM(tests), NULL, 0);
}
