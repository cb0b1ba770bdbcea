/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A file system that is full, and a server that is killed while its file hangs. */

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "blk_harness.h"
#include "fuse_file.h"

#define SIZE (UINT64_C(4) << 20)
#define ALL  (FUSE_FILE_READ | FUSE_FILE_WRITE | FUSE_FILE_SYNC | FUSE_FILE_RANGE)

static uint8_t data[1 << 17], back[1 << 17];

static int
teardown(void **state)
{
	fuse_file_release();
	disks_close(state);
	fuse_file_close();
	return 0;
}

/* A file system that is full: errors, until something is given back. What was written stays. */
static void
full_file_system_is_told(void **state)
{
	static char dir[] = "/tmp/vfn-full-XXXXXX";
	struct disk_conf conf = {.backend = &vfn_blk_file,
		.features = BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES)};
	const uint32_t sectors = sizeof(data) / SECTOR;
	char path[64];
	struct guest *g;
	uint64_t at;
	int fd;

	(void)state;
	strcpy(dir + sizeof(dir) - sizeof("XXXXXX"), "XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(mount("none", dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=1M"), 0);
	snprintf(path, sizeof(path), "%s/disk", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	conf.path = path;
	g = disk_open(&conf);
	/* the file keeps it until the disk is closed */
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	for (at = 0; at < SIZE / SECTOR; at += sectors) {
		pattern(data, at, sizeof(data), 1);
		if (disk_write(g, at, data, sizeof(data)) != VIRTIO_BLK_S_OK)
			break;
	}
	assert_in_range(at * SECTOR, SIZE / 8, SIZE / 4);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_SPACE), 1);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, at + sectors, 1024, 0),
		VIRTIO_BLK_S_IOERR);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_SPACE), 2);
	assert_int_equal(disk_read(g, at - sectors, back, sizeof(back)), VIRTIO_BLK_S_OK);
	pattern(data, at - sectors, sizeof(data), 1);
	assert_memory_equal(back, data, sizeof(back));
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_DISCARD, 0, sectors, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_write(g, at, data, sizeof(data)), VIRTIO_BLK_S_OK);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_IO), 0);
}

/* ---- a server that is killed while its file hangs ---- */

#define LEFT 4

/* Another process, until it is killed: LEFT writes are out. */
static int
serve(const char *path)
{
	struct guest *g;
	unsigned int i;

	if (fn_eal_init(NULL) != 0)
		return 1;
	g = disk_open(&(struct disk_conf){.backend = &vfn_blk_file, .path = path});
	for (i = 0; i < LEFT; i++) {
		pattern(data, 8 * i, 4096, 1);
		ask_post(g, 0,
			&(struct ask){.type = VIRTIO_BLK_T_OUT,
				.sector = 8 * i,
				.out = data,
				.out_len = 4096});
	}
	queue_kick(g, 0);
	for (;;)
		pause();
}

static pid_t
server_start(const char *path)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open("/dev/null", O_WRONLY);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		execl("/proc/self/exe", "server", path, NULL);
		_exit(1);
	}
	return pid;
}

/*
 * What the kernel has begun for it goes on. Its successor opens the file without a look at what is
 * in it, which might wait, too, and has it when all that is over: nothing comes after its own
 * writes.
 */
static void
successor_has_the_file_when_it_is_well_again(void **state)
{
	struct disk_conf conf = {.backend = &vfn_blk_file, .later = true};
	uint64_t end;
	struct guest *g;
	pid_t pid;
	int ret;

	(void)state;
	conf.path = fuse_file_open(SIZE);
	fuse_file_hold(FUSE_FILE_WRITE);
	pid = server_start(conf.path);
	fuse_file_wait(LEFT);
	fuse_file_hold(ALL);
	kill(pid, SIGKILL);
	g = disk_open(&conf);
	fuse_file_wait(LEFT);
	assert_int_equal(vfn_manage_blk_claim(g->fn), -EBUSY);
	fuse_file_release();
	for (end = now_ms() + PATIENCE_MS; (ret = vfn_manage_blk_claim(g->fn)) == -EBUSY;)
		assert_true(now_ms() < end);
	assert_int_equal(ret, 0);
	pattern(data, 0, LEFT * 4096, 1);
	assert_memory_equal(fuse_file_bytes(), data, LEFT * 4096);
	pattern(data, 0, LEFT * 4096, 2);
	assert_int_equal(disk_write(g, 0, data, LEFT * 4096), VIRTIO_BLK_S_OK);
	waitpid(pid, NULL, 0);
	nap_us(100000);
	assert_memory_equal(fuse_file_bytes(), data, LEFT * 4096);
}

int
main(int argc, char **argv)
{
	static const struct CMUnitTest plain[] = {
#define T(f) cmocka_unit_test_teardown(f, teardown)
		T(full_file_system_is_told),
		T(successor_has_the_file_when_it_is_well_again),
	};

	if (strcmp(argv[0], "server") == 0 && argc == 2)
		return serve(argv[1]);
	if (!fuse_file_init()) {
		printf("1..0 # SKIP this user, or this kernel, cannot mount FUSE\n");
		return 0;
	}
	if (fn_eal_init(NULL) != 0)
		return 1;
	return run_list("blk_trouble", plain, DIM(plain), NULL, 0);
}
