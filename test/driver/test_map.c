/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Files of front-ends, mapped: which parts of which, how long, and what is left when one is cut. */

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#include "fn_harness.h"
#include "vfn_drv.h"

#define PAGE 4096u

/* The linker makes these of the driver's calls: a file system that is another process's. */
int __wrap_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs64(int fd, struct statfs *fs);
int __real_fstatfs64(int fd, struct statfs *fs);
static bool fuse;

int
__wrap_fstatfs64(int fd, struct statfs *fs)
{
	int ret = __real_fstatfs64(fd, fs);

	if (ret == 0 && fuse)
		fs->f_type = 0x65735546;
	return ret;
}

int
__wrap_fstatfs(int fd, struct statfs *fs)
{
	return __wrap_fstatfs64(fd, fs);
}

static int
file_new(unsigned int flags, uint64_t size)
{
	int fd = memfd_create("file", MFD_CLOEXEC | flags);

	assert_true(fd >= 0 && ftruncate(fd, size) == 0);
	return fd;
}

static void
part_is_what_the_file_has_there(void **state)
{
	static const uint64_t at[] = {0, 1, PAGE - 1, PAGE, 3 * PAGE + 100};
	int fd = file_new(0, 8 * PAGE);
	unsigned int i;
	uint8_t byte;

	(void)state;
	for (i = 0; i < DIM(at); i++) {
		struct vfn_map *map = vfn_map_fd(fd, at[i], 2 * PAGE);

		assert_non_null(map);
		map->host[0] = i + 1;
		map->host[2 * PAGE - 1] = i + 101;
		assert_int_equal(pread(fd, &byte, 1, at[i]), 1);
		assert_int_equal(byte, i + 1);
		assert_int_equal(pread(fd, &byte, 1, at[i] + 2 * PAGE - 1), 1);
		assert_int_equal(byte, i + 101);
		assert_ptr_equal(vfn_map_get(map), map);
		vfn_map_put(map);
		map->host[0] = 0;
		vfn_map_put(map);
	}
	close(fd);
}

static void
part_that_is_none_is_refused(void **state)
{
	static const struct {
		uint64_t offset, len;
		int error;
	} bad[] = {
		{0, 0, EINVAL},
		{0, 8 * PAGE + 1, ENODATA},
		{8 * PAGE, 1, ENODATA},
		{1, 8 * PAGE, ENODATA},
		{UINT64_MAX, 1, EINVAL},
		{UINT64_MAX, 2, EINVAL},
		{PAGE, UINT64_MAX, EINVAL},
		{0, UINT64_MAX, EINVAL},
		{0, UINT64_C(1) << 63, EINVAL},
		{UINT64_C(1) << 63, UINT64_C(1) << 63, EINVAL},
	};
	int fd = file_new(0, 8 * PAGE), ends[2];
	unsigned int i;

	(void)state;
	for (i = 0; i < DIM(bad); i++) {
		assert_null(vfn_map_fd(fd, bad[i].offset, bad[i].len));
		assert_int_equal(errno, bad[i].error);
	}
	close(fd);
	assert_int_equal(pipe(ends), 0);
	assert_null(vfn_map_fd(ends[0], 0, PAGE));
	close(ends[0]);
	close(ends[1]);
	assert_null(vfn_map_fd(-1, 0, PAGE));
}

static void
file_of_another_process_is_refused(void **state)
{
	int fd = file_new(0, PAGE);

	(void)state;
	fuse = true;
	assert_false(vfn_map_allowed(fd));
	assert_null(vfn_map_fd(fd, 0, PAGE));
	assert_int_equal(errno, EACCES);
	fuse = false;
	assert_true(vfn_map_allowed(fd));
	close(fd);
}

static void
cut(unsigned int flags, uint64_t page)
{
	int fd = file_new(flags, 4 * page);
	struct vfn_map *map = vfn_map_fd(fd, page + 100, 2 * page);
	struct vfn_map *whole = vfn_map_fd(fd, 0, page);

	assert_true(map != NULL && whole != NULL);
	map->host[0] = whole->host[0] = 1;
	assert_int_equal(ftruncate(fd, page), 0);
	assert_int_equal(map->host[page], 0);
	assert_int_equal(map->host[0], 0);
	assert_true(vfn_map_lost(map));
	assert_int_equal(whole->host[0], 1);
	assert_false(vfn_map_lost(whole));
	vfn_map_put(map);
	vfn_map_put(whole);
	close(fd);
}

/* cmocka takes the signal for itself before every test. */
static struct sigaction ours;

static void
file_that_is_cut_off_becomes_zeroes(void **state)
{
	(void)state;
	sigaction(SIGBUS, &ours, NULL);
	cut(0, PAGE);
	cut(MFD_HUGETLB, 2 << 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(part_is_what_the_file_has_there),
		PLAIN(part_that_is_none_is_refused),
		PLAIN(file_of_another_process_is_refused),
		PLAIN(file_that_is_cut_off_becomes_zeroes),
	};
	int fd = memfd_create("first", MFD_CLOEXEC);

	/* With which the handler is there. */
	if (fd < 0 || ftruncate(fd, PAGE) < 0)
		return 1;
	vfn_map_put(vfn_map_fd(fd, 0, PAGE));
	close(fd);
	sigaction(SIGBUS, NULL, &ours);
	return run_list("map", tests, DIM(tests), NULL, 0);
}
